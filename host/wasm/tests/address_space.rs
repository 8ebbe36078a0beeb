//! Little address space.  A file of its own, because the limit holds for the whole process.

mod common;

use common::{TestHost, engine, input, limits};
use rustix::process::{Resource, Rlimit, setrlimit};
use stepwell_wasm::GuestError;
use stepwell_wasm::frontend::{Frontend, FrontendSource};

#[test]
fn an_address_space_that_is_too_small_is_not_blamed_on_the_guest() {
    let engine = engine();
    let frontend = Frontend::load(&engine, &FrontendSource::BuiltinDockerfile).expect("it loads");
    let context = tempfile::tempdir().expect("a directory");
    // A memory reserves its whole address space.
    let little = Rlimit {
        current: Some(2 << 30),
        maximum: None,
    };
    setrlimit(Resource::As, little).expect("it may be lowered");
    let mut host = TestHost::new(context.path());
    let error = frontend
        .build(&input("Dockerfile", "FROM scratch"), &limits(), &mut host)
        .expect_err("there is no room");
    assert!(matches!(error, GuestError::Engine { .. }), "{error:?}");
    assert!(error.to_string().contains("memory"), "{error}");
}
