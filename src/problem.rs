//! An answer that says no: one list of codes, one shape.
//!
//! Nothing else becomes an error response. The layers' own errors convert *into* a [`Problem`] at the edge, where it
//! is decided once what the client may learn. Statuses, codes and messages of the auth API are the wire contract's.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:ident, $message:literal;)*) => {
        /// Why a request was refused. Clients match on [`Code::as_str`].
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code, for the golden list and for documents.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What people read, unless the problem has a message of its own.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)* }
            }
        }
    };
}

codes! {
    // The request itself.
    BadPath = "BAD_PATH", BAD_REQUEST, "The request path is not one that can be routed safely";
    BadHost = "BAD_HOST", BAD_REQUEST, "The request names no host, or more than one";
    BadHeader = "BAD_HEADER", BAD_REQUEST, "A request header is not valid";
    MisdirectedRequest = "MISDIRECTED_REQUEST", MISDIRECTED_REQUEST, "This host is not served here";
    NotFound = "NOT_FOUND", NOT_FOUND, "There is nothing at this address";
    MethodNotAllowed = "METHOD_NOT_ALLOWED", METHOD_NOT_ALLOWED, "This method is not allowed here";
    MethodNotImplemented = "METHOD_NOT_IMPLEMENTED", NOT_IMPLEMENTED, "This method is not known here";
    ExpectationFailed = "EXPECTATION_FAILED", EXPECTATION_FAILED, "Only Expect: 100-continue can be met";
    UnsupportedCoding = "UNSUPPORTED_TRANSFER_CODING", NOT_IMPLEMENTED, "Only the chunked transfer coding is known here";
    UpgradeRefused = "UPGRADE_REFUSED", FORBIDDEN, "This address takes no WebSocket";
    BodyTooLarge = "BODY_TOO_LARGE", PAYLOAD_TOO_LARGE, "The request body is larger than allowed here";
    BodyTimeout = "BODY_TIMEOUT", REQUEST_TIMEOUT, "The request body did not arrive in time";
    BadBody = "BAD_BODY", BAD_REQUEST, "The request body broke off or is malformed";
    HeadersTooLarge = "HEADERS_TOO_LARGE", REQUEST_HEADER_FIELDS_TOO_LARGE, "The request headers are larger than allowed";

    // Who asks.
    Unauthorized = "UNAUTHORIZED", UNAUTHORIZED, "Unauthorized";
    Forbidden = "FORBIDDEN", FORBIDDEN, "You are signed in, but not allowed to do this";
    EmailVerificationNeeded = "EMAIL_VERIFICATION_NEEDED", FORBIDDEN, "A verified e-mail address is needed for this";
    CrossOrigin = "CROSS_ORIGIN", FORBIDDEN, "Requests from other origins are not accepted with a cookie";

    // Upstreams and ourselves.
    UpstreamUnreachable = "UPSTREAM_UNREACHABLE", BAD_GATEWAY, "The application can't be reached";
    UpstreamFailed = "UPSTREAM_FAILED", BAD_GATEWAY, "The application broke off its answer";
    UpstreamTimeout = "UPSTREAM_TIMEOUT", GATEWAY_TIMEOUT, "The application did not answer in time";
    UpstreamBusy = "UPSTREAM_BUSY", SERVICE_UNAVAILABLE, "The application is at its limit";
    Unavailable = "SERVICE_UNAVAILABLE", SERVICE_UNAVAILABLE, "The service is not available at the moment";
    Busy = "TOO_BUSY", SERVICE_UNAVAILABLE, "Too much is going on at the moment";
    Internal = "INTERNAL_ERROR", INTERNAL_SERVER_ERROR, "Something went wrong here";

    // Who asks too often; the message is the wire contract's, section 5.
    TooManyRequests = "TOO_MANY_REQUESTS", TOO_MANY_REQUESTS, "Too many requests. Please try again later.";

    // The auth API; statuses, codes and messages as in the wire contract, section 19.
    Validation = "VALIDATION_ERROR", BAD_REQUEST, "Invalid input";
    BadRequest = "BAD_REQUEST", BAD_REQUEST, "Invalid JSON in request body";
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", UNSUPPORTED_MEDIA_TYPE, "Content-Type is not allowed";
    FieldNotAllowed = "FIELD_NOT_ALLOWED", BAD_REQUEST, "A field is not allowed to be set";
    InvalidEmail = "INVALID_EMAIL", BAD_REQUEST, "Invalid email";
    InvalidEmailOrPassword = "INVALID_EMAIL_OR_PASSWORD", UNAUTHORIZED, "Invalid email or password";
    PasswordTooShort = "PASSWORD_TOO_SHORT", BAD_REQUEST, "Password too short";
    PasswordTooLong = "PASSWORD_TOO_LONG", BAD_REQUEST, "Password too long";
    EmailNotVerified = "EMAIL_NOT_VERIFIED", FORBIDDEN, "Email not verified";
    UserAlreadyExists = "USER_ALREADY_EXISTS_USE_ANOTHER_EMAIL", UNPROCESSABLE_ENTITY, "User already exists. Use another email.";
    SignUpDisabled = "EMAIL_PASSWORD_SIGN_UP_DISABLED", BAD_REQUEST, "Email and password sign up is not enabled";
    BannedUser = "BANNED_USER", FORBIDDEN, "You have been banned from this application. Please contact support if you believe this is an error.";
    InvalidToken = "INVALID_TOKEN", UNAUTHORIZED, "Invalid token";
    TokenExpired = "TOKEN_EXPIRED", UNAUTHORIZED, "Token expired";
    UserNotFound = "USER_NOT_FOUND", UNAUTHORIZED, "User not found";
    EmailMismatch = "EMAIL_MISMATCH", BAD_REQUEST, "Email mismatch";
    EmailAlreadyVerified = "EMAIL_ALREADY_VERIFIED", BAD_REQUEST, "Email is already verified";
    InvalidUser = "INVALID_USER", UNAUTHORIZED, "Invalid user";
    InvalidPassword = "INVALID_PASSWORD", BAD_REQUEST, "Invalid password";
    PasswordAlreadySet = "PASSWORD_ALREADY_SET", BAD_REQUEST, "User already has a password set";
    CredentialAccountNotFound = "CREDENTIAL_ACCOUNT_NOT_FOUND", BAD_REQUEST, "Credential account not found";
    EmailCanNotBeUpdated = "EMAIL_CAN_NOT_BE_UPDATED", BAD_REQUEST, "Email can not be updated";
    ChangeEmailDisabled = "CHANGE_EMAIL_DISABLED", BAD_REQUEST, "Change email is disabled";
    FailedToGetUserInfo = "FAILED_TO_GET_USER_INFO", NOT_FOUND, "Failed to get user info";
    IdTokenNotSupported = "ID_TOKEN_NOT_SUPPORTED", NOT_FOUND, "id_token not supported";
    UserEmailNotFound = "USER_EMAIL_NOT_FOUND", UNAUTHORIZED, "User email not found";
    OAuthLink = "OAUTH_LINK_ERROR", UNAUTHORIZED, "unable to link account";
    AlreadyLinked = "SOCIAL_ACCOUNT_ALREADY_LINKED", CONFLICT, "Social account already linked";
    LinkingNotAllowed = "LINKING_NOT_ALLOWED", UNAUTHORIZED, "Account not linked - linking not allowed";
    LinkingDifferentEmails = "LINKING_DIFFERENT_EMAILS_NOT_ALLOWED", UNAUTHORIZED, "Account not linked - different emails not allowed";
    LastAccount = "FAILED_TO_UNLINK_LAST_ACCOUNT", BAD_REQUEST, "You can't unlink your last account";
    AccountNotFound = "ACCOUNT_NOT_FOUND", BAD_REQUEST, "Account not found";
    InvalidSessionToken = "INVALID_SESSION_TOKEN", UNAUTHORIZED, "Invalid session token";
    ProviderNotSupported = "PROVIDER_NOT_SUPPORTED", BAD_REQUEST, "Provider is not supported.";
    ProviderNotConfigured = "PROVIDER_NOT_CONFIGURED", BAD_REQUEST, "Account is not associated with a configured social provider.";
    RefreshTokenNotFound = "REFRESH_TOKEN_NOT_FOUND", BAD_REQUEST, "Refresh token not found";
    RefreshFailed = "FAILED_TO_REFRESH_ACCESS_TOKEN", BAD_REQUEST, "Failed to refresh access token";
    NoValidAccessToken = "FAILED_TO_GET_ACCESS_TOKEN", BAD_REQUEST, "Failed to get a valid access token";
    AccessTokenNotFound = "ACCESS_TOKEN_NOT_FOUND", BAD_REQUEST, "Access token not found";
    SessionExpired = "SESSION_EXPIRED", BAD_REQUEST, "Session expired. Re-authenticate to perform this action.";
    SessionNotFresh = "SESSION_NOT_FRESH", FORBIDDEN, "Session is not fresh";
    DeferredRefreshOff = "METHOD_NOT_ALLOWED_DEFER_SESSION_REQUIRED", METHOD_NOT_ALLOWED, "POST method requires deferSessionRefresh to be enabled in session config";
    InvalidOrigin = "INVALID_ORIGIN", FORBIDDEN, "Invalid origin";
    MissingOrigin = "MISSING_OR_NULL_ORIGIN", FORBIDDEN, "Missing or null Origin";
    CrossSiteLogin = "CROSS_SITE_NAVIGATION_LOGIN_BLOCKED", FORBIDDEN, "Cross-site navigation login blocked. This request appears to be a CSRF attack.";
    InvalidCallbackUrl = "INVALID_CALLBACK_URL", FORBIDDEN, "Invalid callbackURL";
    InvalidRedirectUrl = "INVALID_REDIRECT_URL", FORBIDDEN, "Invalid redirectURL";
    InvalidErrorCallbackUrl = "INVALID_ERROR_CALLBACK_URL", FORBIDDEN, "Invalid errorCallbackURL";
    InvalidNewUserCallbackUrl = "INVALID_NEW_USER_CALLBACK_URL", FORBIDDEN, "Invalid newUserCallbackURL";
    ProviderNotFound = "PROVIDER_NOT_FOUND", NOT_FOUND, "Provider not found";
    ProviderUnavailable = "PROVIDER_UNAVAILABLE", SERVICE_UNAVAILABLE, "The provider can't be reached at the moment";
}

/// How a problem is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    Json,
    /// For a browser navigation: a page that a person can read.
    Html,
    /// For a gRPC call: a status among the fields of a head with nothing behind it.
    Grpc,
}

/// A refusal on its way to the client.
#[derive(Debug)]
pub struct Problem {
    pub code: Code,
    message: Option<Cow<'static, str>>,
    status: Option<StatusCode>,
    headers: HeaderMap,
    shows: Shows,
}

/// How much of a problem its body tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Shows {
    Everything,
    /// Not the code: the wire contract has a few answers without one.
    MessageAlone,
    /// There is no body: so the contract has it where an endpoint is not there.
    Nothing,
}

impl Problem {
    pub fn new(code: Code) -> Self {
        Self {
            code,
            message: None,
            status: None,
            headers: HeaderMap::new(),
            shows: Shows::Everything,
        }
    }

    /// Leaves the code out of the body: the wire contract has a few answers without one.
    #[must_use]
    pub fn without_code(mut self) -> Self {
        self.shows = Shows::MessageAlone;
        self
    }

    /// Leaves the body out.
    #[must_use]
    pub fn without_body(mut self) -> Self {
        self.shows = Shows::Nothing;
        self
    }

    /// In place of the code's own status: the wire contract gives a few codes another one at some endpoints.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// In place of the code's own message.
    #[must_use]
    pub fn saying(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = Some(message.into());
        self
    }

    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Seconds after which trying again makes sense (RFC 9110, 10.2.3).
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    pub fn message(&self) -> &str {
        self.message.as_deref().unwrap_or_else(|| self.code.message())
    }

    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| self.code.status())
    }

    /// The response. `request_id` lets an operator find the log line that tells the rest.
    pub fn into_response(self, form: Form, request_id: &str) -> Response<Bytes> {
        let status = self.status();
        let (body, content_type) = match form {
            _ if self.shows == Shows::Nothing => (String::new(), None),
            Form::Json => (self.json(request_id), Some("application/json")),
            Form::Html => (self.html(request_id), Some("text/html; charset=utf-8")),
            Form::Grpc => return self.into_grpc(request_id),
        };
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        *headers = self.headers;
        if let Some(content_type) = content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if form == Form::Html {
            headers.insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
        }
        if status == StatusCode::UNAUTHORIZED && !headers.contains_key(header::WWW_AUTHENTICATE) {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    /// A call is refused with 200, for what went wrong is said by `grpc-status`; a client that saw another status would
    /// have to guess (`Trailers-Only` in gRPC over HTTP/2).
    fn into_grpc(self, request_id: &str) -> Response<Bytes> {
        let message = percent_encoding::utf8_percent_encode(self.message(), GRPC_ENCODED).to_string();
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, grpc_status(self.status()));
        if let Ok(message) = HeaderValue::try_from(message) {
            headers.insert(GRPC_MESSAGE, message);
        }
        if let Ok(request_id) = HeaderValue::try_from(request_id) {
            headers.insert(X_REQUEST_ID, request_id);
        }
        response
    }

    fn json(&self, request_id: &str) -> String {
        let message = self.message();
        let body = if self.shows == Shows::Everything {
            serde_json::json!({ "code": self.code.as_str(), "message": message, "requestId": request_id })
        } else {
            serde_json::json!({ "message": message, "requestId": request_id })
        };
        body.to_string()
    }

    fn html(&self, request_id: &str) -> String {
        let message = format!("{}.", self.message().trim_end_matches('.'));
        page(self.status().as_str(), &message, &format!("Request {request_id}"))
    }
}

/// Says how a gRPC call ended.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a `grpc-message` can't hold as it is.
const GRPC_ENCODED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');

/// How gRPC names what an HTTP status says. Those that mean "try elsewhere, or later" are the ones that clients retry.
pub const fn grpc_status(status: StatusCode) -> HeaderValue {
    HeaderValue::from_static(match status.as_u16() {
        // UNAUTHENTICATED
        401 => "16",
        // PERMISSION_DENIED
        403 => "7",
        // UNIMPLEMENTED: there is no such service here.
        404 | 405 | 501 => "12",
        // RESOURCE_EXHAUSTED
        413 | 429 | 431 => "8",
        // UNAVAILABLE
        502 | 503 => "14",
        // DEADLINE_EXCEEDED
        504 => "4",
        // INTERNAL
        _ => "13",
    })
}

/// What a page of [`page`] may do: it has one inline style and nothing else: no script, no image, no frame.
pub const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// A page that tells a person one thing, all of it plain text.
pub fn page(heading: &str, message: &str, small: &str) -> String {
    let [heading, message, small] = [heading, message, small].map(escaped);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{heading}</title><style>:root{{color-scheme:light dark}}\
         body{{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1rem}}\
         small{{opacity:.6}}</style></head><body><h1>{heading}</h1><p>{message}</p>\
         <p><small>{small}</small></p></body></html>"
    )
}

/// Text that is safe between HTML tags and inside quoted attributes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_is_listed_twice() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn a_page_escapes_what_it_shows() {
        let page = Problem::new(Code::Validation)
            .saying("<script>\"'&")
            .into_response(Form::Html, "<id>");
        let body = String::from_utf8(page.body().to_vec()).unwrap();
        assert!(body.contains("&lt;script&gt;&quot;&#39;&amp;") && body.contains("&lt;id&gt;"));
        assert!(!body.contains("<script>"));
    }

    #[test]
    fn a_call_is_told_by_a_status_that_its_library_knows() {
        for (code, status) in [
            (Code::Unauthorized, "16"),
            (Code::Forbidden, "7"),
            (Code::NotFound, "12"),
            (Code::TooManyRequests, "8"),
            (Code::BodyTooLarge, "8"),
            (Code::UpstreamUnreachable, "14"),
            (Code::Busy, "14"),
            (Code::UpstreamTimeout, "4"),
            (Code::BadPath, "13"),
            (Code::Internal, "13"),
        ] {
            let response = Problem::new(code).saying("100 % Zoë").into_response(Form::Grpc, "r1");
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["grpc-status"], status, "{code:?}");
            assert_eq!(response.headers()["grpc-message"], "100 %25 Zo%C3%AB");
            assert_eq!(response.headers()["content-type"], "application/grpc");
            assert!(response.body().is_empty());
        }
    }

    #[test]
    fn a_refusal_says_how_to_authenticate_and_is_never_cached() {
        let response = Problem::new(Code::Unauthorized).into_response(Form::Json, "r1");
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["code"], "UNAUTHORIZED");
        assert_eq!(body["requestId"], "r1");
    }
}
