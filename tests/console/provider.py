"""A small OpenID provider: discovery, authorize, token, keys; ES256. It can be told to lie."""

import asyncio
import base64
import contextlib
import json
import ssl
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import urlencode

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

CLIENT, SECRET = "audit-console", "a secret/with: characters"


@dataclass
class Provider:
    authority: object
    url: str = ""
    key: object = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    kid: str = "k1"
    claims: dict = field(default_factory=dict)
    """Put over the true ones; None takes one away."""
    metadata: dict = field(default_factory=dict)
    algorithm: str = "ES256"
    signs_with: object = None
    down: bool = False
    drips: bool = False
    codes: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)

    async def discovery(self, request):
        if self.down:
            raise web.HTTPServiceUnavailable
        if self.drips:
            return await dripping(request)
        return web.json_response(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize?realm=one",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
            }
            | self.metadata
        )

    async def authorize(self, request):
        """Sign in whoever comes: no form, the person is at once believed."""
        asked = dict(request.query)
        self.asked.append(asked)
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        back = urlencode({"code": code, "state": asked["state"], "iss": self.url})
        there = f"{asked['redirect_uri']}?{back}"
        raise web.HTTPFound(there)

    async def token(self, request):
        if self.drips:
            return await dripping(request)
        form = await request.post()
        asked = self.codes.pop(form.get("code"), None)
        basic = base64.b64decode(
            request.headers.get("Authorization", "Basic ").split()[-1]
        ).decode()
        digest = sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            asked is None
            or basic != "audit-console:a%20secret/with%3A%20characters"
            or asked["code_challenge"] != challenge
            or asked["redirect_uri"] != form["redirect_uri"]
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response({"id_token": self.id_token(asked), "token_type": "Bearer"})

    def id_token(self, asked):
        now = int(time.time())
        told = {
            "iss": self.url,
            "aud": CLIENT,
            "sub": "ada@example.org",
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            "tenant": "acme",
            "roles": ["auditor"],
        } | self.claims
        told = {name: value for name, value in told.items() if value is not None}
        if self.algorithm == "none":
            parts = ({"alg": "none", "kid": self.kid}, told)
            body = [
                base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in parts
            ]
            return b".".join((*body, b"")).decode()
        key = self.signs_with or self.key
        return jwt.encode(told, key, self.algorithm, headers={"kid": self.kid})

    async def keys(self, _request):
        key = ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return web.json_response({"keys": [key | {"kid": self.kid, "use": "sig"}]})


async def dripping(request):
    """Answer a space at a time, until whoever asked has gone."""
    reply = web.StreamResponse()
    await reply.prepare(request)
    with contextlib.suppress(OSError):
        while True:
            await reply.write(b" ")
            await asyncio.sleep(0.05)
    return reply


@asynccontextmanager
async def providing(authority):
    provider = Provider(authority)
    app = web.Application()
    app.add_routes(
        [
            web.get("/.well-known/openid-configuration", provider.discovery),
            web.get("/authorize", provider.authorize),
            web.post("/token", provider.token),
            web.get("/keys", provider.keys),
        ]
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = authority.issue()
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate.key_pem + b"\n" + certificate.chain_pem)
        file.flush()
        context.load_cert_chain(file.name)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    server = await asyncio.get_running_loop().create_server(
        runner.server, "127.0.0.1", 0, ssl=context
    )
    provider.url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.close()
        await runner.cleanup()
