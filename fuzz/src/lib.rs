//! The properties that the fuzz targets try, one file each. All but `gateway` are shared with the tests of the gateway,
//! by path (`tests/it/shared.rs`): there they are tried on inputs that are drawn, here on what a fuzzer finds.

pub mod answers;
pub mod callbacks;
pub mod configuration;
pub mod configured;
pub mod credentials;
pub mod dice;
pub mod forwarded;
pub mod gateway;
pub mod heads;
pub mod paths;
pub mod proxy_heads;
pub mod requests;
pub mod routes;
pub mod stage;
pub mod world;
