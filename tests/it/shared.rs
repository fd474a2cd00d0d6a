//! What tests and fuzz targets have in common, included by path: the fuzz targets (`fuzz/`) have a workspace of their own,
//! so that the gateway's lock file holds nothing of theirs, and a crate that both depend on would have to depend on the
//! gateway, and the gateway's tests on it.
#![allow(unreachable_pub, reason = "to the fuzz targets they are modules of a library")]

#[path = "../../fuzz/src/answers.rs"]
pub(crate) mod answers;
#[path = "../../fuzz/src/callbacks.rs"]
pub(crate) mod callbacks;
#[path = "../../fuzz/src/configuration.rs"]
pub(crate) mod configuration;
#[path = "../../fuzz/src/configured.rs"]
pub(crate) mod configured;
#[path = "../../fuzz/src/credentials.rs"]
pub(crate) mod credentials;
#[path = "../../fuzz/src/dice.rs"]
pub(crate) mod dice;
#[path = "../../fuzz/src/forwarded.rs"]
pub(crate) mod forwarded;
#[path = "../../fuzz/src/heads.rs"]
pub(crate) mod heads;
#[path = "../../fuzz/src/paths.rs"]
pub(crate) mod paths;
#[path = "../../fuzz/src/proxy_heads.rs"]
pub(crate) mod proxy_heads;
#[path = "../../fuzz/src/requests.rs"]
pub(crate) mod requests;
#[path = "../../fuzz/src/routes.rs"]
pub(crate) mod routes;
#[path = "../../fuzz/src/stage.rs"]
pub(crate) mod stage;
#[path = "../../fuzz/src/world.rs"]
pub(crate) mod world;
