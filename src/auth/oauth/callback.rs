//! The way back: GET and POST /callback/:provider.
