//! The example's own tests, run with all others.

#[path = "../examples/testing_a_service.rs"]
#[allow(dead_code, reason = "its `main` is run in tests/examples.rs")]
mod testing_a_service;
