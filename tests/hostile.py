"""What people and attackers type: answers that must be refused, and odd ones that must come out unharmed."""

# What free text may hold although it means something in TOML, YAML, Markdown, Python or a shell.
ODD = {
    "apostrophes": "Zoë's 'own' service",
    "typographic quotes": "“Orders” „desk“ «été»",
    "non-ASCII": "注文サービス",
    "emoji": "Orders 🚚👩‍👩‍👧",
    "leading digit": "3D Printer",
    "YAML true": "true",
    "YAML null": "null",
    "YAML number": "1e3",
    "YAML date": "2026-11-23",
    "YAML colon": "orders: the desk",
    "YAML document": "---",
    "YAML comment": "orders # desk",
    "YAML anchor": "&orders *orders !orders",
    "YAML list": "- orders",
    "TOML triple quotes": "'''",
    "TOML table": "[project]",
    "command substitution": "$(id) $HOME",
    "shell": "orders; rm -rf / | tee & wait",
    "percent": "100 % %s %(name)s",
    "path": "../../etc/passwd",
    "arithmetic": "7*7",
    "two spaces": "orders  desk",
    "Markdown rule": "***",
    "Markdown table": "a | b",
}
MARKDOWN = {
    "emphasis": "*bold* _thin_ ~~old~~",
    "link": "[x](y)",
    "heading": "# # orders",
    "closing hashes": "C #",
    "entity": "Q&amp;A",
    "list": "1. orders",
}
SEPARATORS = {"newline": "\n", "carriage return": "\r", "tab": "\t", "NUL": "\0", "escape": "\x1b", "line": "\u2028"}
UNSEEN = {"zero width": "\u200b", "byte order": "\ufeff", "right to left": "\u202e", "isolate": "\u2066"}
ACTIVE = {
    "double quote": 'say "hi"',
    "triple quotes": '"""',
    "backslash": "a\\b",
    "backtick": "`id`",
    "Jinja expression": "{{ 7*7 }}",
    "Jinja statement": "{% raw %}",
    "Jinja comment": "{# x #}",
    "shell variable": "${HOME}",
    "closing script": "</script>",
    "HTML comment": "<!-- x -->",
}
PATHS = ("../x", "/etc", "a/b", ".", "..", "~", "a\0b", "a b", "-a", "a-", "a--b", "a\n", "Orders", "zoë", "3d", "")
SLUG = "type my-shop: lower-case letters"
LONG = "x" * 201

REFUSED: dict[str, tuple[str, str, str]] = {
    **{f"{q}: empty": (q, "", "type one line of text") for q in ("project_name", "description", "user_name")},
    **{f"{q}: blank": (q, " \t ", "type one line of text") for q in ("project_name", "user_name")},
    "project_name: 200 characters": ("project_name", "x" * 200, "type fewer characters, at most 80: it has 200"),
    "description: 201 characters": ("description", LONG, "type fewer characters, at most 200: it has 201"),
    "user_name: 200 characters": ("user_name", "x" * 200, "type fewer characters, at most 100: it has 200"),
    "user_name: outer space": ("user_name", "team ", "no space around it: type it without"),
    **{
        f"project_name: {id}": ("project_name", text, 'no "\\`{}<>: type it without these characters')
        for id, text in ACTIVE.items()
    },
    **{
        f"description: {id}": ("description", text, 'no "\\`{}<>: type it without these characters')
        for id, text in ACTIVE.items()
    },
    **{f"description: {id}": ("description", f"a{text}b", "type one line") for id, text in SEPARATORS.items()},
    "user_name: half a character": ("user_name", "team \udc80", "type one line"),
    **{
        f"project_name: {id}": ("project_name", text, "hidden character: type it without")
        for id, text in UNSEEN.items()
    },
    **{f"project_slug: {text!r}": ("project_slug", text, SLUG) for text in PATHS},
    "project_slug: 41 characters": ("project_slug", "x" * 41, SLUG),
    **{
        f"project_slug: {n}": ("project_slug", n, f"type {n}-service: ")
        for n in ("class", "com1", "con", "json", "nul", "test")
    },
    **{
        f"package_name: {text!r}": ("package_name", text, "type -d package_name=my_shop: ") for text in (*PATHS, "a__b")
    },
    **{
        f"package_name: {name}": ("package_name", name, f"type -d package_name={name}_service: ")
        for name in ("async", "fastapi", "json", "platform", "test", "tests")
    },
    **{
        f"user_email: {text!r}": ("user_email", text, "type me@acme.com, or nothing")
        for text in (
            "nobody",
            "a@b",
            "a b@c.de",
            '"a"@b.cd',
            "a@b.cd\n",
            "a@b.cd,e@f.gh",
            "<a@b.cd>",
            "ä@b.cd",
            "a@b..cd",
        )
    },
    **{
        f"github_user: {text!r}": ("github_user", text, "type your-org: letters")
        for text in ("", "a/b", "..", "a b", "-a", "a--b", "a\n", "ö", "x" * 40)
    },
    "license: unknown": ("license", "gpl", "type one of apache-2.0, mit, proprietary"),
    "database: unknown": ("database", "oracle", "type one of postgresql, none"),
    "python_version: unknown": ("python_version", "2.7", "type one of 3.12, 3.13, 3.14"),
}
ACCEPTED: dict[str, dict[str, str]] = {
    **{f"text: {id}": {"project_name": t, "description": t, "user_name": t} for id, t in {**ODD, **MARKDOWN}.items()},
    "longest": {
        "project_name": "n" * 80,
        "description": "d" * 200,
        "user_name": "u" * 100,
        "user_email": "a" * 60 + "@example.com",
        "github_user": "g" * 39,
        "project_slug": "s" * 40,
    },
    "shortest": dict.fromkeys(("project_name", "description", "user_name", "github_user", "project_slug"), "x"),
    "package by -d": {"package_name": "order_desk", "project_slug": "orders"},
    "email": {"user_email": "o'brien+tag".replace("'", "") + "@mail.example.co"},
}
