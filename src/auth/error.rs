//! Why the auth API refuses, and what of that the client may know.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::{
    auth::password::{PasswordError, Unacceptable},
    db::{self, DbError},
    policy::csrf::AuthOriginError,
    problem::{Code, Problem},
    session::LookupError,
};

/// Where a request may name a place to go to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target {
    Callback,
    Redirect,
    ErrorCallback,
    NewUserCallback,
}

impl Target {
    pub const ALL: [Self; 4] = [
        Self::Callback,
        Self::Redirect,
        Self::ErrorCallback,
        Self::NewUserCallback,
    ];

    pub const fn field(self) -> &'static str {
        match self {
            Self::Callback => "callbackURL",
            Self::Redirect => "redirectTo",
            Self::ErrorCallback => "errorCallbackURL",
            Self::NewUserCallback => "newUserCallbackURL",
        }
    }
}

/// As the contract's clients know it; beside `Retry-After`.
const X_RETRY_AFTER: HeaderName = HeaderName::from_static("x-retry-after");

impl Target {
    /// As messages name it.
    const fn label(self) -> &'static str {
        match self {
            Self::Redirect => "redirectURL",
            Self::Callback | Self::ErrorCallback | Self::NewUserCallback => self.field(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("too many requests")]
    TooManyRequests(Duration),

    // The request.
    #[error("the body is larger than the auth API takes")]
    BodyTooLarge,
    #[error("the body did not arrive in time")]
    BodyTimeout,
    #[error("the body broke off")]
    BadBody,
    #[error("the body is no JSON, or names a key twice")]
    BadJson,
    #[error("a form names a field twice")]
    RepeatedField,
    #[error("the body has a type that is not read here")]
    UnsupportedMediaType { found: String, allowed: &'static str },
    #[error("the body has a content coding, and none is read here")]
    EncodedBody,
    #[error("the request's origin is refused")]
    Origin(#[from] AuthOriginError),
    #[error("{} leads elsewhere", .0.field())]
    ForeignTarget(Target),
    #[error("{} is no text", .0.field())]
    TargetNotText(Target),
    #[error("{0}")]
    Validation(String),
    #[error("{0} is not for users to set")]
    FieldNotAllowed(&'static str),
    #[error("not an address")]
    InvalidEmail,
    #[error("a password of this length is not accepted")]
    Password(Unacceptable),

    // Who asks.
    #[error("there is no session")]
    Unauthorized,
    #[error("the session is not fresh")]
    NotFresh,
    #[error("neither a password nor a fresh session")]
    SessionExpired,
    #[error("wrong address or password")]
    InvalidCredentials,
    #[error("the address is not verified")]
    NotVerified,
    #[error("the user is banned")]
    Banned,

    // What is asked for.
    #[error("sign-up is switched off")]
    SignUpDisabled,
    #[error("the address has a user")]
    UserExists,
    #[error("another address than the session's")]
    EmailMismatch,
    #[error("the address is verified already")]
    AlreadyVerified,
    #[error("a link that never was, or is void")]
    InvalidToken,
    #[error("a link that has expired")]
    TokenExpired,
    #[error("a link of a user who is gone")]
    UserNotFound,
    #[error("the session is read with GET")]
    DeferredRefreshOff,
    #[error("this endpoint is switched off")]
    SwitchedOff,
    #[error("a link to delete an account, while that is switched off")]
    DeletionOff,
    #[error("a reset link that never was, or is void")]
    ResetLinkVoid,
    #[error("a reset link of a user who is gone")]
    ResetUserNotFound,
    #[error("a link to delete an account that never was, is void, or is somebody else's")]
    DeletionLinkVoid,
    #[error("a link to delete an account, without a session")]
    NoUserToDelete,
    #[error("the link is of another user than the session")]
    InvalidUser,
    #[error("wrong password")]
    InvalidPassword,
    #[error("the user has a password")]
    PasswordAlreadySet,
    #[error("the user has no password")]
    NoPassword,
    #[error("the address is changed elsewhere")]
    EmailCanNotBeUpdated,
    #[error("changing the address is switched off")]
    ChangeEmailDisabled,
    #[error("the address is the user's already")]
    SameEmail,
    #[error("nothing is to be changed")]
    NothingToUpdate,
    #[error("the last way to sign in stays")]
    LastAccount,
    #[error("the user has no such way to sign in")]
    AccountNotFound,
    #[error("a provider whose id_tokens are not read")]
    IdTokenNotSupported,
    #[error("the provider tells no address")]
    UserEmailNotFound,
    #[error("the provider's account does not get in: {0}")]
    OAuthLink(&'static str),
    #[error("the provider's account is another user's")]
    AlreadyLinked,
    #[error("the provider's account may not be linked")]
    LinkingNotAllowed,
    #[error("the provider's account has another address")]
    LinkingDifferentEmails,
    #[error("a session that is not of this device")]
    InvalidSessionToken,

    // Providers' tokens.
    #[error("there is no session, and nothing to be said of it")]
    NoSession,
    #[error("no provider of the account's name is configured")]
    ProviderNotSupported(String),
    #[error("no provider of the account's name is configured to be asked")]
    ProviderNotConfigured,
    #[error("the provider gave no refresh token")]
    RefreshTokenNotFound,
    #[error("the provider's tokens could not be refreshed")]
    RefreshFailed,
    #[error("no access token that is good could be had")]
    NoValidAccessToken,
    #[error("the provider gave no access token")]
    AccessTokenNotFound,
    #[error("the provider does not say who it is")]
    NoUserInfo,
    // Providers.
    #[error("no provider has this name")]
    ProviderNotFound,
    #[error("a provider could not be asked")]
    ProviderUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),

    // Us.
    #[error("passwords can't be hashed at the moment")]
    Hashing(#[from] PasswordError),
    #[error("Postgres could not be asked")]
    Db(#[from] DbError),
    #[error("the session could not be looked up")]
    Lookup(#[source] LookupError),
}

impl From<LookupError> for AuthError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::TooManyUnknown(wait) => Self::TooManyRequests(wait),
            other => Self::Lookup(other),
        }
    }
}

impl AuthError {
    /// What the client may learn.
    pub const fn code(&self) -> Code {
        match self {
            Self::TooManyRequests(_) => Code::TooManyRequests,
            Self::BodyTooLarge => Code::BodyTooLarge,
            Self::BodyTimeout => Code::BodyTimeout,
            Self::BadBody => Code::BadBody,
            Self::BadJson | Self::RepeatedField | Self::TargetNotText(_) | Self::SameEmail | Self::NothingToUpdate => {
                Code::BadRequest
            }
            Self::UnsupportedMediaType { .. } | Self::EncodedBody => Code::UnsupportedMediaType,
            Self::Origin(AuthOriginError::Missing) => Code::MissingOrigin,
            Self::Origin(AuthOriginError::Invalid) => Code::InvalidOrigin,
            Self::Origin(AuthOriginError::CrossSiteLogin) => Code::CrossSiteLogin,
            Self::ForeignTarget(Target::Callback) => Code::InvalidCallbackUrl,
            Self::ForeignTarget(Target::Redirect) => Code::InvalidRedirectUrl,
            Self::ForeignTarget(Target::ErrorCallback) => Code::InvalidErrorCallbackUrl,
            Self::ForeignTarget(Target::NewUserCallback) => Code::InvalidNewUserCallbackUrl,
            Self::Validation(_) => Code::Validation,
            Self::FieldNotAllowed(_) => Code::FieldNotAllowed,
            Self::InvalidEmail => Code::InvalidEmail,
            Self::Password(Unacceptable::TooShort) => Code::PasswordTooShort,
            Self::Password(Unacceptable::TooLong) => Code::PasswordTooLong,
            Self::Unauthorized | Self::NoSession => Code::Unauthorized,
            Self::NotFresh => Code::SessionNotFresh,
            Self::SessionExpired => Code::SessionExpired,
            Self::InvalidCredentials => Code::InvalidEmailOrPassword,
            Self::NotVerified => Code::EmailNotVerified,
            Self::Banned => Code::BannedUser,
            Self::SignUpDisabled => Code::SignUpDisabled,
            Self::UserExists => Code::UserAlreadyExists,
            Self::EmailMismatch => Code::EmailMismatch,
            Self::AlreadyVerified => Code::EmailAlreadyVerified,
            Self::InvalidToken | Self::ResetLinkVoid | Self::DeletionLinkVoid => Code::InvalidToken,
            Self::TokenExpired => Code::TokenExpired,
            Self::UserNotFound | Self::ResetUserNotFound => Code::UserNotFound,
            Self::SwitchedOff | Self::DeletionOff => Code::NotFound,
            Self::NoUserToDelete | Self::NoUserInfo => Code::FailedToGetUserInfo,
            Self::InvalidUser => Code::InvalidUser,
            Self::InvalidPassword => Code::InvalidPassword,
            Self::PasswordAlreadySet => Code::PasswordAlreadySet,
            Self::NoPassword => Code::CredentialAccountNotFound,
            Self::EmailCanNotBeUpdated => Code::EmailCanNotBeUpdated,
            Self::ChangeEmailDisabled => Code::ChangeEmailDisabled,
            Self::LastAccount => Code::LastAccount,
            Self::AccountNotFound => Code::AccountNotFound,
            Self::IdTokenNotSupported => Code::IdTokenNotSupported,
            Self::UserEmailNotFound => Code::UserEmailNotFound,
            Self::OAuthLink(_) => Code::OAuthLink,
            Self::AlreadyLinked => Code::AlreadyLinked,
            Self::LinkingNotAllowed => Code::LinkingNotAllowed,
            Self::LinkingDifferentEmails => Code::LinkingDifferentEmails,
            Self::InvalidSessionToken => Code::InvalidSessionToken,
            Self::ProviderNotSupported(_) => Code::ProviderNotSupported,
            Self::ProviderNotConfigured => Code::ProviderNotConfigured,
            Self::RefreshTokenNotFound => Code::RefreshTokenNotFound,
            Self::RefreshFailed => Code::RefreshFailed,
            Self::NoValidAccessToken => Code::NoValidAccessToken,
            Self::AccessTokenNotFound => Code::AccessTokenNotFound,
            Self::DeferredRefreshOff => Code::DeferredRefreshOff,
            Self::ProviderNotFound => Code::ProviderNotFound,
            Self::ProviderUnavailable(_) => Code::ProviderUnavailable,
            Self::Hashing(PasswordError::Busy) => Code::Busy,
            Self::Db(DbError::Unavailable(_)) | Self::Lookup(_) => Code::Unavailable,
            Self::Hashing(PasswordError::Failed)
            | Self::Db(DbError::Conflict { .. } | DbError::Failed { .. } | DbError::Row { .. }) => Code::Internal,
        }
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let problem = Self::new(error.code());
        let retry_after = u32::try_from(db::RETRY_AFTER.as_secs()).unwrap_or(u32::MAX);
        match error {
            AuthError::TooManyRequests(wait) => {
                let seconds = whole_seconds(wait);
                problem
                    .without_code()
                    .retry_after(seconds)
                    .with_header(X_RETRY_AFTER, HeaderValue::from(seconds))
            }
            AuthError::Validation(issues) => problem.saying(issues),
            AuthError::FieldNotAllowed(field) => problem.saying(format!("{field} is not allowed to be set")),
            AuthError::RepeatedField => problem.saying("A form field is given twice"),
            AuthError::TargetNotText(target) => problem
                .saying(format!("Invalid {}: expected a string", target.label()))
                .without_code(),
            AuthError::UnsupportedMediaType { found, allowed } => problem.saying(format!(
                "Content-Type \"{found}\" is not allowed. Allowed types: {allowed}"
            )),
            // RFC 9110, 15.5.16.
            AuthError::EncodedBody => problem
                .saying("Content-Encoding is not allowed")
                .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")),
            AuthError::OAuthLink(why) => problem.saying(why),
            AuthError::SameEmail => problem.saying("Email is the same").without_code(),
            AuthError::NothingToUpdate => problem.saying("No fields to update").without_code(),
            AuthError::SwitchedOff | AuthError::NoSession => problem.without_body(),
            AuthError::ProviderNotSupported(provider) => {
                problem.saying(format!("Provider {provider} is not supported."))
            }
            AuthError::NoUserInfo => problem.with_status(StatusCode::UNAUTHORIZED),
            AuthError::DeletionOff => problem.saying("Not found"),
            AuthError::ResetLinkVoid | AuthError::ResetUserNotFound => problem.with_status(StatusCode::BAD_REQUEST),
            AuthError::DeletionLinkVoid => problem.with_status(StatusCode::NOT_FOUND),
            AuthError::DeferredRefreshOff => problem.with_header(header::ALLOW, HeaderValue::from_static("GET")),
            AuthError::Hashing(PasswordError::Busy)
            | AuthError::Db(DbError::Unavailable(_))
            | AuthError::Lookup(_)
            | AuthError::ProviderUnavailable(_) => problem.retry_after(retry_after),
            AuthError::BodyTooLarge
            | AuthError::BodyTimeout
            | AuthError::BadBody
            | AuthError::BadJson
            | AuthError::Origin(_)
            | AuthError::ForeignTarget(_)
            | AuthError::InvalidEmail
            | AuthError::Password(_)
            | AuthError::Unauthorized
            | AuthError::NotFresh
            | AuthError::InvalidCredentials
            | AuthError::NotVerified
            | AuthError::Banned
            | AuthError::SignUpDisabled
            | AuthError::UserExists
            | AuthError::EmailMismatch
            | AuthError::AlreadyVerified
            | AuthError::InvalidToken
            | AuthError::TokenExpired
            | AuthError::UserNotFound
            | AuthError::SessionExpired
            | AuthError::NoUserToDelete
            | AuthError::InvalidUser
            | AuthError::InvalidPassword
            | AuthError::PasswordAlreadySet
            | AuthError::NoPassword
            | AuthError::EmailCanNotBeUpdated
            | AuthError::ChangeEmailDisabled
            | AuthError::LastAccount
            | AuthError::AccountNotFound
            | AuthError::IdTokenNotSupported
            | AuthError::UserEmailNotFound
            | AuthError::AlreadyLinked
            | AuthError::LinkingNotAllowed
            | AuthError::LinkingDifferentEmails
            | AuthError::InvalidSessionToken
            | AuthError::ProviderNotConfigured
            | AuthError::RefreshTokenNotFound
            | AuthError::RefreshFailed
            | AuthError::NoValidAccessToken
            | AuthError::AccessTokenNotFound
            | AuthError::ProviderNotFound
            | AuthError::Hashing(PasswordError::Failed)
            | AuthError::Db(DbError::Conflict { .. } | DbError::Failed { .. } | DbError::Row { .. }) => problem,
        }
    }
}

/// Never too few, so that whoever waits so long is let in; and not zero, which would be now.
fn whole_seconds(wait: Duration) -> u32 {
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Form;

    fn body(error: AuthError) -> serde_json::Value {
        serde_json::from_slice(Problem::from(error).into_response(Form::Json, "r1").body()).unwrap()
    }

    #[test]
    fn messages_are_the_contracts() {
        assert_eq!(
            body(AuthError::FieldNotAllowed("role"))["message"],
            "role is not allowed to be set"
        );
        let not_text = body(AuthError::TargetNotText(Target::Callback));
        assert_eq!(not_text["message"], "Invalid callbackURL: expected a string");
        assert!(not_text.get("code").is_none());
        let media_type = AuthError::UnsupportedMediaType {
            found: "text/plain".to_owned(),
            allowed: "application/json",
        };
        assert_eq!(
            body(media_type)["message"],
            "Content-Type \"text/plain\" is not allowed. Allowed types: application/json"
        );
    }

    #[test]
    fn who_asks_too_often_is_told_when_to_come_back() {
        for (wait, seconds) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2"), (59_999, "60")] {
            let error = AuthError::TooManyRequests(Duration::from_millis(wait));
            let response = Problem::from(error).into_response(Form::Json, "r1");
            assert_eq!(response.status(), 429);
            assert_eq!(response.headers()["retry-after"], seconds, "{wait} ms");
            assert_eq!(response.headers()["x-retry-after"], seconds, "{wait} ms");
            let body = r#"{"message":"Too many requests. Please try again later.","requestId":"r1"}"#;
            assert_eq!(response.body(), body);
        }
    }

    #[test]
    fn what_may_pass_says_when_to_try_again() {
        let away = AuthError::Db(DbError::Unavailable("away".into()));
        for error in [AuthError::Hashing(PasswordError::Busy), away] {
            let response = Problem::from(error).into_response(Form::Json, "r1");
            assert_eq!(
                (response.status().as_u16(), &response.headers()["retry-after"]),
                (503, &"2".parse().unwrap())
            );
        }
    }
}
