//! A flow under way: its state, the browser that it belongs to, and what it will need at its end.
