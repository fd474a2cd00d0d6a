//! What `vestibule dev` and the tests bring up beside the gateway: a private Postgres, a mail server with an inbox, an
//! upstream that shows what it received, a command of the user's. No part of a gateway in production.

pub mod http;
pub mod inbox;
pub mod postgres;
pub mod smtp;
pub mod supervised;
pub mod upstream;
