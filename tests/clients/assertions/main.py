"""An upstream that believes nobody but the gateway's signature: it could stand where everybody can reach it.

Run by tests/it/assertion_fastapi.rs. JWKS_URL says where the keys are, ISSUER who must have signed; it is the upstream "app".
"""

import os
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, Header, HTTPException

ISSUER = os.environ["ISSUER"]
AUDIENCE = "app"

# Five minutes by default, as `Cache-Control` says; a test has less time than that.
keys = jwt.PyJWKClient(os.environ["JWKS_URL"], lifespan=1)
app = FastAPI(title="Proof, please")


def get_claims(x_vestibule_assertion: Annotated[str, Header()] = "") -> dict:
    try:
        key = keys.get_signing_key_from_jwt(x_vestibule_assertion)
        return jwt.decode(
            x_vestibule_assertion,
            key,
            algorithms=["EdDSA", "ES256"],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={"require": ["iss", "aud", "sub", "sid", "iat", "exp"]},
        )
    except jwt.PyJWTError as error:
        raise HTTPException(401, f"no proof of who you are: {error}") from error


@app.get("/api/who")
def who(claims: Annotated[dict, Depends(get_claims)], x_vestibule_assertion: Annotated[str, Header()]) -> dict:
    """Who it is, and which key says so."""
    return {"claims": claims, "kid": jwt.get_unverified_header(x_vestibule_assertion)["kid"]}


@app.get("/api/known")
def known() -> list[str]:
    """The keys that it would believe."""
    return [key.key_id for key in keys.get_signing_keys()]


@app.get("/other/said")
def said(x_vestibule_assertion: Annotated[str, Header()]) -> str:
    """What another upstream is told."""
    return x_vestibule_assertion
