# ruff: noqa
# mypy: ignore-errors
"""Code that each emitted rule finds (`ruleid`) or leaves alone (`ok`): read by `semgrep test`, never run."""

import socket
import sqlite3
import ssl
from pathlib import Path

import boto3
import httpx
import httpx2
import hvac
import jwt
import psycopg
import redis
import sqlalchemy
import uvicorn
from anyio import to_thread
from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, RedirectResponse
from sqlalchemy import text
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

router = APIRouter()
NEWEST = "SELECT name FROM items ORDER BY created"


async def sql(session, connection, cursor, name, order):
    # ruleid: sql-from-strings
    await session.execute(text(f"SELECT * FROM items WHERE name = '{name}'"))
    # ruleid: sql-from-strings
    await session.execute(text("SELECT * FROM items ORDER BY " + order))
    # ruleid: sql-from-strings
    query = text("SELECT * FROM items WHERE name = '%s'" % name)
    # ruleid: sql-from-strings
    await connection.exec_driver_sql("DELETE FROM items WHERE name = '{}'".format(name))
    # ruleid: sql-from-strings
    sqlalchemy.select(sqlalchemy.literal_column(order))
    # ruleid: sql-from-strings
    sqlalchemy.select(items).order_by(text(f"{order} DESC"))
    # ok: sql-from-strings
    await session.execute(text("SELECT * FROM items WHERE name = :name"), {"name": name})
    # ok: sql-from-strings
    await session.execute(text(NEWEST))
    # ok: sql-from-strings
    await session.execute(sqlalchemy.select(items).where(items.c.name == name))


def tokens(token, key):
    # ruleid: jwt-not-verified
    jwt.decode(token, options={"verify_signature": False})
    # ruleid: jwt-not-verified
    jwt.decode(token, key, algorithms=["RS256"], options={"require": ["exp"], "verify_aud": False})
    # ruleid: jwt-not-verified
    jwt.decode(token, key, algorithms=["RS256", "none"])
    # ok: jwt-not-verified
    jwt.decode(token, key, algorithms=["RS256"], audience="orders", options={"require": ["exp"]})


async def blocking(loop):
    # ruleid: blocking-client-in-async
    boto3.client("s3")
    # ruleid: blocking-client-in-async
    hvac.Client(url="https://vault.internal")
    # ruleid: blocking-client-in-async
    with psycopg.connect("dbname=orders"):
        pass
    # ruleid: blocking-client-in-async
    redis.Redis.from_url("redis://cache.internal")
    # ruleid: blocking-client-in-async
    socket.getaddrinfo("db.internal", 5432)
    # ruleid: blocking-client-in-async
    sqlite3.connect("service.db")
    # ok: blocking-client-in-async
    await loop.getaddrinfo("db.internal", 5432)
    # ok: blocking-client-in-async
    redis.asyncio.Redis.from_url("redis://cache.internal")
    # ok: blocking-client-in-async
    await to_thread.run_sync(lambda: boto3.client("s3"))


def blocking_elsewhere():
    # ok: blocking-client-in-async
    return boto3.client("s3")


def cors(app, origins):
    # ruleid: cors-any-origin-with-credentials
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_credentials=True)
    # ruleid: cors-any-origin-with-credentials
    app.add_middleware(CORSMiddleware, allow_credentials=True, allow_origin_regex=".*")
    # ok: cors-any-origin-with-credentials
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    # ok: cors-any-origin-with-credentials
    app.add_middleware(CORSMiddleware, allow_origins=origins, allow_credentials=True)


def tls(context):
    # ruleid: tls-not-verified
    httpx2.AsyncClient(base_url="https://prices.internal", verify=False)
    # ruleid: tls-not-verified
    redis.asyncio.from_url("rediss://cache.internal", ssl_cert_reqs="none")
    # ruleid: tls-not-verified
    context.check_hostname = False
    # ruleid: tls-not-verified
    context.verify_mode = ssl.CERT_NONE
    # ok: tls-not-verified
    httpx2.AsyncClient(base_url="https://prices.internal", verify=context)


def proxies(app):
    # ruleid: proxy-headers-from-anyone
    uvicorn.run(app, forwarded_allow_ips="*")
    # ruleid: proxy-headers-from-anyone
    ProxyHeadersMiddleware(app, trusted_hosts="*")
    # ok: proxy-headers-from-anyone
    uvicorn.run(app, forwarded_allow_ips="10.0.0.7")


def debug():
    # ruleid: debug-responses
    FastAPI(title="orders", debug=True)
    # ok: debug-responses
    FastAPI(title="orders")


@router.get("/files")
async def send_file(name: str):
    # ruleid: request-decides-target
    return FileResponse(f"/srv/files/{name}")


@router.get("/reports")
def read_report(name: str, limit: int = 5):
    # ruleid: request-decides-target
    return Path("/srv/reports", name).read_text()


@router.get("/login")
async def log_in(target: str):
    # ruleid: request-decides-target
    return RedirectResponse(target)


@router.get("/prices")
async def prices(host: str):
    # ruleid: request-decides-target
    return httpx.get("https://" + host + "/prices").json()


@router.get("/known")
async def known(name: str):
    # ok: request-decides-target
    return FileResponse("/srv/files/terms.pdf", headers={"X-Name": "terms"})
