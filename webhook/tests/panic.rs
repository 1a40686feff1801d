//! A panic is one log line. The hook is the whole process's, so the test has one for itself.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tracing::level_filters::LevelFilter;
use webhook::log::{Format, panicked, subscriber};

/// Collects what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_panic_is_one_line_of_json() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = subscriber(Format::Json, LevelFilter::ERROR, move || writer.clone());
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(panicked));
    let outcome = tracing::subscriber::with_default(subscriber, || {
        std::panic::catch_unwind(|| panic!("on purpose\n{}", 1))
    });
    std::panic::set_hook(hook);
    assert!(outcome.is_err());

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&line["level"], &line["message"]), (&"ERROR".into(), &"panicked".into()));
    assert_eq!(line["panic"], "on purpose\\n1");
    assert!(line["location"].as_str().unwrap().contains("tests/panic.rs:"), "{line}");
}
