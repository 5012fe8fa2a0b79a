"""The forms in which secrets stand in texts: each with one that must be hidden, and a like one that must not be.

`{}` is the secret; a harmless text has none. Sources: the formats of the vendors' tokens, RFC 3986 (URLs), RFC 7617 and
6750 (schemes), ISO/IEC 7812 (cards), the documentation of the named servers and libraries.
"""

Row = tuple[str, str]

KEYS: dict[str, Row] = {
    "snake": ("user_pass={}", "user_path=/home"),
    "camel": ("userPass={}", "compass=north"),
    "kebab": ("X-Db-Pass: {}", "by-pass-count: 3"),
    "glued": ("smtppass={}", "bypass=1"),
    "capitals": ("PGPASSWORD={}", "PGDATABASE=orders"),
    "short": ("pw={}", "pwm=3"),
    "short camel": ("userPW={}", "userPWM=3"),
    "one-time password": ("otpCode: {}", "postCode: 10115"),
    "second factor": ("mfa_code={}", "exit_code=3"),
    "verification": ("verificationCode={}", "status_code=200"),
    "recovery": ("recovery-codes: {}", "recovery-mode: fast"),
    "card": ("cardNumber={}", "orderNumber=12"),
    "card check": ("cvv2={}", "cv=3"),
    "zero-width": ("pass\u200bword={}", "na\u200bme=x \U0001f468\u200d\U0001f469"),
    "zero-width, split": ("sec\u2060ret: {}", "sec\u2060tor: x"),
    "two words": ("API key: {}", "primary key: id"),
    "two words, upper": ("SECRET KEY = {}", "CACHE KEY = a"),
    "bracket": ("user[password]={}", "user[name]=x"),
    "index": ("passwords[0]={}", "names[0]=x"),
    "dots": ("spring.datasource.password={}", "spring.datasource.name=x"),
    "Java": ("-Ddb.password={}", "-Ddb.name=x"),
    "session": ("PHPSESSID={}", "possess=3"),
    "assertion": ("client_assertion={}", "insertion=3"),
    "pydantic": ("[type=missing, input_value='{}', input_type=str]", "[type=missing, input_type=str]"),
    "counts": ("token={}", "max_tokens=100 token_count=3 tokenizer=fast"),
}
SEPARATORS: dict[str, Row] = {
    "==": ("password == {}", "status == 200"),
    ":=": ("password := {}", "name := x"),
    "=>": ("'password' => '{}'", "'name' => 'x'"),
    "->": ("password -> {}", "name -> x"),
    "!=": ("WHERE password != '{}'", "WHERE name != 'x'"),
    "blanks": ("password     =        {}", "name     =        x"),
    "blanks after a colon": ("password:             {}", "name:             x"),
    "tab": ("password\t{}", "name\tx"),
    "column": ("| password | {} |", "| name | x |"),
    "newline": ("password:\n    {}", "name:\n    x"),
    "full width": ("password\uff1a{}", "name\uff1ax"),
    "is": ("the password is '{}'", "the password is wrong, the password is required"),
    "was, without quotes": ("password was {}1", "password was too short"),
    "SQL": ("ALTER ROLE app WITH PASSWORD '{}'", 'password authentication failed for user "app"'),
    "SQL, identified": ("SET PASSWORD TO '{}'", "SET search_path TO 'x'"),
    "SQL, in": ("token IN ('{}')", "name IN ('x')"),
    "call, without quotes": ("password({}) failed", "name(x) failed"),
    "Oracle": ("sqlplus -s scott/{}@db:1521/orders", "actions/checkout@v4, connect to db/orders"),
    "Oracle, JDBC": ("jdbc:oracle:thin:scott/{}@//db:1521/orders", "jdbc:postgresql://db:5432/orders"),
    "call": ("Password('{}')", "name('x')"),
    "annotated": ('password: str | None = "{}"', 'name: str = "x"'),
    "comment": ("password (plain): {}", "name (plain): x"),
    "markdown": ("**password**: {}", "**name**: x"),
    "option": ("deploy --token {} now", "deploy --name x now"),
    "option with one dash": ("deploy -password {} now", "deploy -name x now"),
    "curl": ("curl -u app:{} https://acme.test", "curl -u app https://acme.test"),
    "name and value": ('{{"name": "DB_PASSWORD", "value": "{}"', '{"name": "DB_NAME", "value": "x"'),
    "YAML list": ("- name: DB_PASSWORD\n  value: {}", "- name: DB_NAME\n  value: x"),
    "HTML input": ('<input name="password" type="password" value="{}">', '<input name="q" value="x">'),
    "multipart": ('form-data; name="password"\r\n\r\n{}\r\n', 'form-data; name="q"\r\n\r\nx\r\n'),
    "reason": ("auth:{}", "auth:AuthenticationError token: jwt.ExpiredSignatureError"),
}
VALUES: dict[str, Row] = {
    "single quotes, doubled": ("password='it''s {}' user=a", "name='it''s' user=a"),
    "double quotes, doubled": ('password="a""{}"', 'name="a""b"'),
    "quotes, escaped": (r"password='a\'{}'", r"name='a\'b'"),
    "three quotes": ('password="""two {}"""', 'name="""x"""'),
    "bytes": ("password=b'a {}'", "name=b'a'"),
    "backticks": ("password `a {}`", "name `a`"),
    "typographic": ("password \u201ca {}\u201d", "name \u201ca\u201d"),
    "prefix": ('password=@"a {}"', 'name=@"a"'),
    "JSON in JSON": (r"{{\"password\": \"a\\n {}\"}}", r"{\"name\": \"a\\n\"}"),
    "JSON in JSON in JSON": (r"{{\\\"password\\\": \\\"a {}\\\"}}", r"{\\\"name\\\": \\\"a\\\"}"),
    "nested": ("'credentials': {{\n  'user': '{}',\n  'more': {{'a': '{}'}}\n}}", "'x': {\n  'user': 'a'\n}"),
    "nested list": ('"tokens": [\n  "a",\n  "{}"\n]', '"names": [\n  "a"\n]'),
    "nested, cut": ("{{'credentials': {{\n    'user': '{}'", "{'x': {\n    'user': 'a'"),
    "brackets in quotes": ("'credentials': {{'a': 'x}}', 'b': '{}'}}", "'x': {'a': 'x}', 'b': 'y'}"),
    "repr of an object": ("credentials=Login(user='{}', also=['{}'])", "x=Login(user='a', also=['b'])"),
    "element": ("<password>two {}</password>", "<name>two words</name>"),
    "element with attributes": ('<password type="plain">two {}</password>', '<name type="plain">x</name>'),
    "element with CDATA": ("<ns:password><![CDATA[two {}]]></ns:password>", "<ns:name><![CDATA[x]]></ns:name>"),
    "block": ("password: |\n  first\n  {}\n", "name: |\n  first\n  second\n"),
    "connection string": ("Server=a;Password=two {};Database=b", "Server=a;Name=two words;Database=b"),
    "header": ("Cookie: a=b; c={}", "Host: a; c"),
}
ENCODED: dict[str, Row] = {
    "percent": ("password%3D{}", "name%3Dx"),
    "percent, quoted": ("%22password%22%3A%22{}%22", "%22name%22%3A%22x%22"),
    "percent, twice": ("password%253D{}", "name%253Dx"),
    "percent, with a blank": ("password%3Dtwo%20{}", "name%3Dtwo%20words"),
    "percent, URL": ("postgresql%3A%2F%2Fapp%3A{}%40db%2Forders", "https%3A%2F%2Facme.test%2Fdocs"),
    "percent, in a query": ("GET /x?next=%2Fa%3Fpassword%3D{}", "50 % of a&b, 100%25"),
    "HTML": ("&quot;password&quot;:&quot;{}&quot;", "Tom &amp; Jerry &quot;name&quot;"),
    "HTML, number": ("password&#61;{}", "name&#61;x"),
    "JSON": (r"password\u003d{}", r"name\u003dx"),
    "hexadecimal": (r"password\x3d{}", r"name\x3dx"),
}
URLS: dict[str, Row] = {
    "double quote": ('postgresql://app:pa"{}@db/x', "postgresql://db/x"),
    "single quote": ("postgresql://app:pa'{}@db/x", "postgresql://db:5432/x"),
    "angle bracket": ("postgresql://app:pa<{}>@db/x", "http://[::1]:8000/x"),
    "blank": ("postgresql://app:pa {}@db/x", "redis://cache:6379/0 is away"),
    "slash": ("postgresql://app:pa/{}@db/x", "https://acme.test:8443/@me"),
    "at": ("postgresql://app:pa@{}@db/x", "https://acme.test/docs"),
    "no user": ("redis://:{}@cache:6379/0", "redis://cache:6379/0"),
    "Slack": ("https://hooks.slack.com/services/T0/B0/{}", "https://slack.com/help"),
    "Discord": ("https://discord.com/api/webhooks/1/{}", "https://discord.com/api"),
}
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
TOKENS: dict[str, Row] = {
    "SendGrid": (f"SG.{LETTERS[:22]}.{{}}{LETTERS}", "SGML.parse"),
    "Hugging Face": (f"hf_{LETTERS}{{}}", "hf_model"),
    "Slack": ("xapp-1-A0-{}", "xapplication"),
    "GitLab": (f"glrt-{LETTERS}{{}}", "gloss-paint"),
    "Google": (f"ya29.{LETTERS}{{}}", "ya29"),
    "Docker": (f"dckr_pat_{LETTERS}{{}}", "docker_path"),
    "Stripe": (f"whsec_{LETTERS}{{}}", "whence_x"),
    "Anthropic": ("sk-ant-api03-{}", "ask-anyone"),
    "Telegram": (f"123456789:AA{LETTERS}{{}}", "12:30:45 AA"),
    "Grafana": (f"glsa_{LETTERS}{{}}", "glsa"),
    "Sentry": (f"sntrys_{LETTERS}{{}}", "sentry"),
    "PGP": (
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{}\n-----END PGP PRIVATE KEY BLOCK-----",
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nx\n-----END PGP PUBLIC KEY BLOCK-----",
    ),
    "SSH2": (
        "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n{}\n---- END SSH2 ENCRYPTED PRIVATE KEY ----",
        "---- BEGIN SSH2 PUBLIC KEY ----\nx\n---- END SSH2 PUBLIC KEY ----",
    ),
    "PEM in JSON": (
        r"-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----",
        r"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----",
    ),
}
ERRORS: dict[str, Row] = {
    "h11": ("Illegal header value b'{}\\n'", "Illegal header name b'x y'"),
    "h11, line": ("illegal header line: bytearray(b'authorization {}')", "illegal request line"),
    "http.client": ("Invalid header value b'two {}'", "Invalid header name b'x'"),
    "requests": ("or return character(s) in header value: ' {}'", "the header value is too long"),
    "PostgreSQL": ("DETAIL:  Failing row contains (1, {}, null).", "the failing row was skipped"),
    "SQLAlchemy": ("[SQL: INSERT]\n[parameters: (1, '{}')]\n(Background", "the parameters: a, b"),
    "SQLAlchemy, names": ("[parameters: {{'name': '{}'}}]", "[parameter: x]"),
}
CARDS = {
    "Visa": ("4111 1111 1111 1111", "4111 1111 1111 1112"),
    "Mastercard": ("5555555555554444", "5555555555554445"),
    "Mastercard, series 2": ("2221000000000009", "2221000000000010"),
    "Mastercard, end of series 2": ("2720-9900-0000-0007", "2721990000000006"),
    "American Express": ("3782 822463 10005", "3782 822463 10006"),
    "dots": ("4111.1111.1111.1111", "1.4111.1111.1111"),
}
TABLE = {
    f"{kind}: {name}": row
    for kind, rows in {
        "key": KEYS,
        "separator": SEPARATORS,
        "value": VALUES,
        "encoded": ENCODED,
        "URL": URLS,
        "token": TOKENS,
        "error": ERRORS,
    }.items()
    for name, row in rows.items()
}
