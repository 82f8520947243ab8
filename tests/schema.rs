//! The lock file as a user has it: the registered events of a program against a committed file.

#[expect(dead_code, reason = "its events are what is wanted")]
#[path = "../examples/versions.rs"]
mod versions;

const LOCK: &str = "examples/events.lock.json";

#[test]
fn the_examples_events_are_what_the_lock_file_says() {
    rumormill::schema::check(LOCK);
}

#[test]
fn what_is_registered_is_listed_by_type() {
    let registered = rumormill::schema::registered();
    let names: Vec<_> = registered.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(names, ["users.created"]);
    let event = &registered[0];
    assert_eq!((event.version, event.oldest, event.upcasts), (3, 1, true));
    let required = event.reads.get("required").and_then(|names| names.as_array()).expect("a list");
    assert_eq!(required.len(), 3);
    let text = rumormill::schema::render(&registered);
    assert_eq!(rumormill::schema::parse(&text).expect("reads its own"), registered);
}

/// The committed file with one field less: what a forgetful author would see.
#[test]
fn a_break_fails_the_test_and_names_the_field() {
    let locked = std::fs::read_to_string(LOCK).expect("the committed file");
    let mut before = rumormill::schema::parse(&locked).expect("is a lock file");
    let event = &mut before[0];
    for schema in [&mut event.reads, &mut event.writes] {
        schema["required"] = serde_json::json!(["first", "last"]);
        schema["properties"].as_object_mut().expect("an object").remove("language");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("events.lock.json");
    std::fs::write(&path, rumormill::schema::render(&before)).expect("writes");
    let failed = std::panic::catch_unwind(|| rumormill::schema::check(&path));
    let text = *failed.expect_err("it fails").downcast::<String>().expect("a text");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("1 change since"), "{text}");
    let field = "users.created: `language`: new programs require it, \
         events published before may lack it";
    assert_eq!(lines[1].trim(), field);
    assert!(lines[2].contains("version = 4 with an upcast from 3"), "{text}");
}
