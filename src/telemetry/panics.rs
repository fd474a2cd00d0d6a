//! What is said of a panic: where it was, and no value.
//!
//! A message with values in it shows what the panic was about, which may be a client's: that of a slice quotes the text, that
//! of an `unwrap` the error. So only messages are shown that stand in the source as they are; for others the place must
//! do. What becomes of the request or task is not decided here.

use std::{
    any::Any,
    io::{self, Write as _},
    panic::{self, PanicHookInfo},
    thread,
};

use tracing::{dispatcher, error};

/// From now on, for the whole process.
pub fn say_no_values() {
    panic::set_hook(Box::new(tell));
}

fn tell(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let location = panic.location().map_or("nowhere", |location| location.file());
    let line = panic.location().map_or(0, panic::Location::line);
    let message = shown(panic.payload());
    if dispatcher::has_been_set() {
        error!(location, line, thread, message, "a thread panicked");
    } else {
        // A command, which logs nothing. A panic in here would end the process before it has cleaned up.
        let _ = writeln!(io::stderr(), "vestibule: a panic at {location}:{line}: {message}");
    }
}

fn shown(payload: &(dyn Any + Send)) -> &'static str {
    let whole = payload.downcast_ref::<&'static str>().copied();
    whole.unwrap_or("its message has values in it and is not shown")
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn shown_of(panics: fn()) -> &'static str {
        shown(&*catch_unwind(panics).unwrap_err())
    }

    #[test]
    fn a_message_is_shown_if_it_holds_no_value() {
        assert_eq!(shown_of(|| panic!("the worker is gone")), "the worker is gone");
        let withheld = "its message has values in it and is not shown";
        assert_eq!(shown_of(|| panic!("{} is wrong", String::from("hunter2"))), withheld);
        assert_eq!(shown_of(|| assert_eq!("hunter2".len(), 0)), withheld);
        assert_eq!(shown_of(|| panic::panic_any(7)), withheld);
    }
}
