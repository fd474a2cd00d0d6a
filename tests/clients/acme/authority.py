"""An ACME certificate authority for tests: see README.md.

It is written from the specifications alone and shares nothing with the gateway: what both get wrong alike, no test
would see. Whatever a client sends is checked as an authority would check it, and refused with the problem that the
specification names.
"""

import base64
import datetime
import hashlib
import hmac
import http.client
import ipaddress
import json
import secrets
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

ACME_IDENTIFIER = ObjectIdentifier("1.3.6.1.5.5.7.1.31")
LOOK_WITHIN = 5


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    if "=" in text or "+" in text or "/" in text:
        raise Problem(400, "malformed", "not base64url without padding")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Problem(Exception):
    def __init__(self, status, kind, detail, headers=None):
        super().__init__(detail)
        self.status, self.kind, self.detail, self.headers = status, kind, detail, headers or {}

    def json(self):
        kind = f"urn:ietf:params:acme:error:{self.kind}"
        return {"type": kind, "detail": self.detail, "status": self.status}


class Issuer:
    """Root, intermediate, and what they sign."""

    def __init__(self):
        self.root_key, self.root = self.authority("Test root", None)
        self.key, self.intermediate = self.authority("Test intermediate", (self.root_key, self.root))

    @staticmethod
    def authority(name, parent):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer, signer = (parent[1].subject, parent[0]) if parent else (subject, key)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.datetime(2020, 1, 1))
            .not_valid_after(datetime.datetime(2040, 1, 1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(signer, hashes.SHA256())
        )
        return key, certificate

    def sign(self, public_key, names, start, lifetime):
        begin = datetime.datetime.fromtimestamp(start, datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.intermediate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + datetime.timedelta(seconds=lifetime))
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )


def pem(*certificates):
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)


class State:
    """All that the authority knows; one lock for all of it, but not while it looks."""

    def __init__(self):
        self.lock = threading.RLock()
        self.issuer = Issuer()
        self.told = {
            "look": {"http-01": [], "tls-alpn-01": []},
            "now": 1_795_248_000,
            "lifetime": 90 * 86400,
            "eab": {},
            "ari": None,
            "faults": {},
        }
        self.nonces = set()
        self.accounts, self.orders, self.authorizations, self.certificates = [], [], [], []
        self.counts = {"requests": 0, "accounts": 0, "orders": 0, "looks": 0, "issued": 0, "asked": 0}
        self.last = {}

    def fault(self, name):
        return self.told["faults"].get(name)

    def spend(self, name):
        """Whether a fault that is told by number is still to happen."""
        left = self.fault(name) or 0
        if left > 0:
            self.told["faults"][name] = left - 1
        return left > 0

    def nonce(self):
        nonce = b64(secrets.token_bytes(16))
        self.nonces.add(nonce)
        return nonce


def thumbprint(jwk):
    """RFC 7638, of a P-256 key."""
    members = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    return b64(hashlib.sha256(json.dumps(members, sort_keys=True, separators=(",", ":")).encode()).digest())


def verify(jwk, signed, signature):
    if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256" or len(signature) != 64:
        raise Problem(400, "badPublicKey", "a P-256 key, and its signature")
    number = lambda data: int.from_bytes(data, "big")
    key = ec.EllipticCurvePublicNumbers(number(unb64(jwk["x"])), number(unb64(jwk["y"])), ec.SECP256R1()).public_key()
    try:
        key.verify(
            encode_dss_signature(number(signature[:32]), number(signature[32:])), signed, ec.ECDSA(hashes.SHA256())
        )
    except InvalidSignature:
        raise Problem(403, "unauthorized", "the signature is not the key's") from None


def look_by_http(address, domain, token, expected):
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=LOOK_WITHIN)
    try:
        connection.request("GET", f"/.well-known/acme-challenge/{token}", headers={"Host": domain})
        answer = connection.getresponse()
        body = answer.read(10_000)
    except (OSError, http.client.HTTPException) as error:
        raise Problem(400, "connection", f"{address}: {error}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise Problem(403, "unauthorized", f"{address} answered {answer.status}")
    # RFC 8555, section 8.3: white space at the end is ignored.
    if body.rstrip().decode("ascii", "replace") != expected:
        raise Problem(403, "unauthorized", f"{address} answered something else")


def look_by_tls(address, domain, expected):
    host, port = address.rsplit(":", 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["acme-tls/1"])
    try:
        with socket.create_connection((host, int(port)), timeout=LOOK_WITHIN) as plain:
            with context.wrap_socket(plain, server_hostname=domain) as tls:
                protocol, der = tls.selected_alpn_protocol(), tls.getpeercert(binary_form=True)
    except OSError as error:
        raise Problem(400, "tls", f"{address}: {error}") from None
    if protocol != "acme-tls/1":
        raise Problem(403, "unauthorized", f"{address} spoke {protocol}, not acme-tls/1")
    certificate = x509.load_der_x509_certificate(der)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if list(names) != [x509.DNSName(domain)]:
        raise Problem(403, "unauthorized", f"{address} showed a certificate for {list(names)}")
    try:
        extension = certificate.extensions.get_extension_for_oid(ACME_IDENTIFIER)
    except x509.ExtensionNotFound:
        raise Problem(403, "unauthorized", f"{address} showed a certificate without acmeIdentifier") from None
    digest = hashlib.sha256(expected.encode()).digest()
    if not extension.critical or extension.value.value != b"\x04\x20" + digest:
        raise Problem(403, "unauthorized", f"{address} showed another digest")


class Directory(BaseHTTPRequestHandler):
    """The ACME side."""

    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, *_):
        pass

    def url(self, path):
        return f"https://127.0.0.1:{self.server.server_port}{path}"

    def answer(self, status, body=None, headers=None, kind="application/json"):
        data = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if self.command != "GET":
            self.send_header("Replay-Nonce", self.state.nonce())
        headers = dict(headers or {})
        if self.state.fault("retry_after") is not None:
            headers["Retry-After"] = str(self.state.fault("retry_after"))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle_with(self, work):
        state = self.state
        with state.lock:
            state.counts["requests"] += 1
            state.last["user_agent"] = self.headers.get("User-Agent")
            if state.spend("broken"):
                return self.answer(503, "<html>Service Unavailable</html>", {"Retry-After": "1"}, "text/html")
        try:
            work()
        except Problem as problem:
            self.answer(problem.status, problem.json(), problem.headers, "application/problem+json")

    def do_GET(self):
        self.handle_with(self.get)

    def do_HEAD(self):
        self.handle_with(lambda: self.answer(200))

    def do_POST(self):
        self.handle_with(self.post)

    def get(self):
        state = self.state
        if self.path == "/directory":
            ends = {"newNonce": "nonce", "newAccount": "account", "newOrder": "order", "revokeCert": "revoke"}
            directory = {name: self.url(f"/new/{end}") for name, end in ends.items()}
            directory["keyChange"] = self.url("/change")
            directory["meta"] = {"termsOfService": self.url("/terms"), "profiles": {"classic": "ninety days"}}
            if state.told["ari"] is not None:
                directory["renewalInfo"] = self.url("/renewal")
            return self.answer(200, directory)
        if self.path.startswith("/renewal/") and state.told["ari"] is not None:
            with state.lock:
                state.counts["asked"] += 1
                if self.path.removeprefix("/renewal/") not in [known["id"] for known in state.certificates]:
                    raise Problem(404, "malformed", "no certificate of this authority")
            stamp = lambda at: datetime.datetime.fromtimestamp(at, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            start, end = state.told["ari"]
            window = {"suggestedWindow": {"start": stamp(start), "end": stamp(end)}}
            return self.answer(200, window, {"Retry-After": "60"})
        raise Problem(404, "malformed", "nothing here")

    def post(self):
        """RFC 8555, section 6: a signed request, for this URL, with a nonce that was given out."""
        state = self.state
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if self.headers.get("Content-Type") != "application/jose+json":
            raise Problem(415, "malformed", "not application/jose+json")
        head = json.loads(unb64(body["protected"]))
        with state.lock:
            known = head.get("nonce") in state.nonces
            state.nonces.discard(head.get("nonce"))
            if not known or state.spend("bad_nonce"):
                raise Problem(400, "badNonce", "a nonce that was not given out, or was used")
        if head.get("url") != self.url(self.path):
            raise Problem(403, "unauthorized", "signed for another URL")
        if head.get("alg") != "ES256" or ("jwk" in head) == ("kid" in head):
            raise Problem(400, "badSignatureAlgorithm", "ES256, and either jwk or kid")
        signed = f"{body['protected']}.{body['payload']}".encode()
        payload = json.loads(unb64(body["payload"])) if body["payload"] else None
        with state.lock:
            if "jwk" in head:
                if self.path != "/new/account":
                    raise Problem(400, "malformed", "only a new account is signed with a key")
                verify(head["jwk"], signed, unb64(body["signature"]))
                return self.new_account(head, payload)
            if state.fault("forget_accounts"):
                state.accounts.clear()
                state.told["faults"]["forget_accounts"] = False
            account = next((one for one in state.accounts if one["url"] == head["kid"]), None)
            if account is None:
                raise Problem(400, "accountDoesNotExist", "no such account")
            verify(account["jwk"], signed, unb64(body["signature"]))
        parts = self.path.strip("/").split("/")
        if parts == ["new", "order"]:
            return self.new_order(account, payload)
        if parts[0] == "account":
            account["contact"] = (payload or {}).get("contact", account["contact"])
            return self.answer(200, {"status": "valid", "contact": account["contact"]})
        number = int(parts[1])
        if parts[0] == "order":
            return self.show_order(state.orders[number])
        if parts[0] == "authorization":
            return self.answer(200, self.authorization(state.authorizations[number]))
        if parts[0] == "challenge":
            return self.look(state.authorizations[number], account)
        if parts[0] == "finalize":
            return self.finalize(state.orders[number], payload)
        if parts[0] == "certificate":
            return self.answer(200, state.certificates[number]["chain"], kind="application/pem-certificate-chain")
        raise Problem(404, "malformed", "nothing here")

    def new_account(self, head, payload):
        state, jwk = self.state, head["jwk"]
        known = next((one for one in state.accounts if one["thumbprint"] == thumbprint(jwk)), None)
        if known:
            return self.answer(200, {"status": "valid"}, {"Location": known["url"]})
        if not payload.get("termsOfServiceAgreed"):
            raise Problem(403, "userActionRequired", "the terms must be agreed to")
        if state.told["eab"]:
            self.check_binding(jwk, payload.get("externalAccountBinding"))
        url = self.url(f"/account/{secrets.token_hex(4)}")
        state.accounts.append(
            {"url": url, "jwk": jwk, "thumbprint": thumbprint(jwk), "contact": payload.get("contact", [])}
        )
        state.counts["accounts"] += 1
        return self.answer(201, {"status": "valid"}, {"Location": url})

    def check_binding(self, jwk, binding):
        """RFC 8555, section 7.3.4."""
        if binding is None:
            raise Problem(403, "externalAccountRequired", "accounts here are bound to others")
        head = json.loads(unb64(binding["protected"]))
        key = self.state.told["eab"].get(head.get("kid"))
        right = key is not None and head.get("alg") == "HS256" and head.get("url") == self.url("/new/account")
        if not right or "nonce" in head or json.loads(unb64(binding["payload"])) != jwk:
            raise Problem(403, "unauthorized", "not bound to an account that is known")
        expected = hmac.new(unb64(key), f"{binding['protected']}.{binding['payload']}".encode(), hashlib.sha256)
        if not hmac.compare_digest(expected.digest(), unb64(binding["signature"])):
            raise Problem(403, "unauthorized", "bound with another key")

    def new_order(self, account, payload):
        state = self.state
        with state.lock:
            pause = state.fault("rate_limited")
            if pause:
                raise Problem(429, "rateLimited", "too many certificates", {"Retry-After": str(pause)})
            if state.fault("terms"):
                link = f'<{self.url("/terms/2")}>;rel="terms-of-service"'
                raise Problem(403, "userActionRequired", "the terms have changed: agree at the link", {"Link": link})
            if payload.get("profile") not in (None, "classic"):
                raise Problem(400, "invalidProfile", "no such profile")
            replaces = payload.get("replaces")
            if replaces:
                replaced = next((one for one in state.certificates if one["id"] == replaces), None)
                if replaced is None or replaced["replaced"] or state.fault("refuse_replaces"):
                    raise Problem(409, "alreadyReplaced", "that one is replaced already")
                replaced["replaced"] = True
            order = {
                "number": len(state.orders),
                "status": "pending",
                "identifiers": payload["identifiers"],
                "authorizations": [],
                "replaces": replaces,
                "profile": payload.get("profile"),
                "left": state.fault("processing") or 0,
                "account": account["thumbprint"],
            }
            state.orders.append(order)
            state.counts["orders"] += 1
            state.last["order"] = {key: order[key] for key in ("identifiers", "replaces", "profile")}
            for identifier in payload["identifiers"]:
                state.authorizations.append(
                    {
                        "number": len(state.authorizations),
                        "order": order,
                        "identifier": identifier,
                        "token": b64(secrets.token_bytes(32)),
                        "status": "pending",
                        "left": state.fault("pending") or 0,
                        "error": None,
                    }
                )
                order["authorizations"].append(state.authorizations[-1])
            return self.show_order(order, 201)

    def show_order(self, order, status=200):
        with self.state.lock:
            states = [one["status"] for one in order["authorizations"]]
            if order["status"] == "pending" and "invalid" in states:
                order["status"] = "invalid"
            elif order["status"] == "pending" and all(one == "valid" for one in states):
                order["status"] = "ready"
            elif order["status"] == "processing":
                order["left"] -= 1
                if order["left"] <= 0:
                    order["status"] = "valid"
            number = order["number"]
            shown = {
                "status": order["status"],
                "identifiers": order["identifiers"],
                "authorizations": [self.url(f"/authorization/{one['number']}") for one in order["authorizations"]],
                "finalize": self.url(f"/finalize/{number}"),
            }
            for optional in ("replaces", "profile"):
                if order[optional]:
                    shown[optional] = order[optional]
            if order["status"] == "valid":
                shown["certificate"] = self.url(f"/certificate/{order['certificate']}")
            return self.answer(status, shown, {"Location": self.url(f"/order/{number}")})

    def authorization(self, one):
        kinds = ["dns-01"] if self.state.fault("only_dns") else ["http-01", "dns-01", "tls-alpn-01"]
        return {
            "identifier": one["identifier"],
            "status": one["status"],
            "challenges": [self.challenge(one, kind) for kind in kinds],
        }

    def challenge(self, one, kind):
        url = self.url(f"/challenge/{one['number']}/{kind}")
        shown = {"type": kind, "url": url, "token": one["token"], "status": one["status"]}
        if one["error"]:
            shown["error"] = one["error"]
        return shown

    def look(self, one, account):
        kind = self.path.rsplit("/", 1)[1]
        # An authority answers at once, and looks meanwhile.
        threading.Thread(target=self.look_and_note, args=(one, account, kind), daemon=True).start()
        self.answer(200, {**self.challenge(one, kind), "status": "processing"})

    def look_and_note(self, one, account, kind):
        state, domain = self.state, one["identifier"]["value"]
        expected = f"{one['token']}.{account['thumbprint']}"
        try:
            addresses = state.told["look"].get(kind, [])
            if not addresses:
                raise Problem(400, "dns", f"{domain} leads nowhere")
            for address in addresses:
                with state.lock:
                    state.counts["looks"] += 1
                if kind == "http-01":
                    look_by_http(address, domain, one["token"], expected)
                else:
                    look_by_tls(address, domain, expected)
            status, error = "valid", None
        except Problem as problem:
            status, error = "invalid", problem.json()
        with state.lock:
            one["status"], one["error"] = status, error

    def finalize(self, order, payload):
        state = self.state
        if order["status"] != "ready":
            raise Problem(403, "orderNotReady", f"the order is {order['status']}")
        csr = x509.load_der_x509_csr(unb64(payload["csr"]))
        asked = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
        if not csr.is_signature_valid or sorted(asked) != sorted(one["value"] for one in order["identifiers"]):
            raise Problem(403, "badCSR", f"not for what was ordered: {asked}")
        with state.lock:
            if any(csr.public_key() == known["key"] for known in state.certificates):
                raise Problem(403, "badCSR", "a key that was certified already")
            names = [x509.DNSName("other.example.net" if state.fault("other_name") else name) for name in asked]
            other = ec.generate_private_key(ec.SECP256R1()).public_key()
            key = other if state.fault("other_key") else csr.public_key()
            leaf = state.issuer.sign(key, names, state.told["now"], state.told["lifetime"])
            authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
            serial = leaf.serial_number
            # As it stands in the certificate: a positive number in DER (RFC 9773, section 4.1).
            serial = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
            order["certificate"] = len(state.certificates)
            state.certificates.append(
                {
                    "chain": pem(leaf, state.issuer.intermediate),
                    "id": f"{b64(authority.key_identifier)}.{b64(serial)}",
                    "key": csr.public_key(),
                    "replaced": False,
                }
            )
            state.counts["issued"] += 1
            order["status"] = "processing" if order["left"] > 0 else "valid"
        self.show_order(order)


class Control(BaseHTTPRequestHandler):
    """The test's side."""

    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, *_):
        pass

    def do_GET(self):
        state = self.state
        with state.lock:
            shown = {**state.counts, **state.last, "contacts": [one["contact"] for one in state.accounts]}
        data = json.dumps(shown).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.state.lock:
            unknown = told.keys() - self.state.told.keys()
            if unknown:
                self.send_error(400, f"unknown: {unknown}")
                return
            self.state.told.update(told)
        self.do_GET()


def main(folder):
    state = State()
    root, identity = Path(folder) / "root.pem", Path(folder) / "authority.pem"
    root.write_text(pem(state.issuer.root))
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    # From 2020 on, so long that no clock matters.
    own = state.issuer.sign(key.public_key(), names, 1_577_836_800, 20 * 365 * 86400)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    identity.write_text(private + pem(own, state.issuer.intermediate))
    directory = ThreadingHTTPServer(("127.0.0.1", 0), type("Directory", (Directory,), {"state": state}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    # In the connection's thread: a client that says nothing holds up nobody else.
    directory.socket = context.wrap_socket(directory.socket, server_side=True, do_handshake_on_connect=False)
    control = ThreadingHTTPServer(("127.0.0.1", 0), type("Control", (Control,), {"state": state}))
    for server in (directory, control):
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(
        json.dumps(
            {
                "directory": f"https://127.0.0.1:{directory.server_port}/directory",
                "control": f"127.0.0.1:{control.server_port}",
                "root": str(root),
            }
        ),
        flush=True,
    )
    # Until whoever started it goes away, and its end of the pipe with it.
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
