//! What users may write, and what they are told otherwise.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use CallKind::{AllocateInto, Reallocate, ReallocateOrFree, Resize};

use super::*;

fn call(part: &str) -> Call {
    let spec: CustomAllocator = format!("{part};alloc=other_alloc;free=other_free").parse().unwrap();
    spec.functions.first().unwrap().1
}

fn error(spec: &str) -> String {
    spec.parse::<CustomAllocator>().unwrap_err().to_string()
}

#[test]
fn arguments_are_told_by_name_and_place() {
    assert_eq!(call("alloc=f(size=3)"), Call::allocate(3));
    assert_eq!(call("alloc=f(size=1,count=2)"), Call::allocate(1).of_array(2));
    assert_eq!(call("calloc=f(count=4,size=5)"), Call::allocate(5).of_array(4));
    assert_eq!(call("memalign=f(size=0)"), Call::allocate(0));
    assert_eq!(call("posix_memalign=f(out=1,size=0)"), Call::allocate_into(1, 0));
    assert_eq!(call("alloc=f(out=2,size=0)"), Call::allocate_into(2, 0));
    assert_eq!(call("realloc=f(ptr=1,size=2)"), Call::reallocate(1, 2));
    assert_eq!(call("realloc=f(ptr=1,size=3,count=2)"), Call::reallocate(1, 3).of_array(2));
    assert_eq!(call("reallocf=f(ptr=1,size=2)"), Call::reallocate(1, 2).but(ReallocateOrFree));
    assert_eq!(call("resize=f(ptr=1,size=2)"), Call::reallocate(1, 2).but(Resize));
    assert_eq!(call("free=f(ptr=5)"), Call::free(5));
}

#[test]
fn what_is_not_said_is_where_it_usually_is() {
    assert_eq!(call("alloc=f"), Call::allocate(0));
    assert_eq!(call("calloc=f()"), Call::allocate(1).of_array(0));
    assert_eq!(call("memalign=f"), Call::allocate(1));
    assert_eq!(call("posix_memalign=f"), Call::allocate_into(0, 2).but(AllocateInto));
    assert_eq!(call("realloc=f"), Call::reallocate(0, 1).but(Reallocate));
    assert_eq!(call("realloc=f(size=2)"), Call::reallocate(0, 2));
    assert_eq!(call("free=f"), Call::free(0));
}

#[test]
fn blanks_empty_parts_and_a_file_are_understood() {
    let spec: CustomAllocator = " alloc = f ( size = 1 ) ; ; free=g ; @ libpool.so.1".parse().unwrap();
    assert_eq!(spec.functions, [("f".to_owned(), Call::allocate(1)), ("g".to_owned(), Call::free(0))]);
    assert_eq!((spec.module.as_deref(), spec.name()), (Some("libpool.so.1"), "f"));
    let spec: CustomAllocator = "free=g;alloc=_ZN4Pool5allocEm(size=1)".parse().unwrap();
    assert_eq!((spec.module, spec.functions.len()), (None, 2));
}

#[test]
fn faults_are_named() {
    let form = "is not of the form role=function(argument=index,…)";
    for spec in ["alloc", "alloc=", "alloc=f(size=0", "alloc=f(size)", "alloc=f g", "=f"] {
        let message = error(spec);
        assert!(message.contains(form) || message.contains("is not a role"), "{spec}: {message}");
    }
    assert!(error("alloc=f;free=g@").contains(form));
    assert!(error("get=f").starts_with("`get` is not a role: use alloc, calloc"));
    assert_eq!(error("free=f(size=0)"), "`free` has no argument `size`: it takes ptr");
    for index in ["6", "-1", "x", "", "256", "0)"] {
        let message = error(&format!("alloc=f(size={index})"));
        assert!(
            message.starts_with(&format!("`size={index}`: an argument is told by its position")),
            "{message}"
        );
    }
    for twice in ["alloc=f(size=0,size=1)", "realloc=f(ptr=1,size=1)", "realloc=f(ptr=1)", "calloc=f(size=0)"]
    {
        assert!(error(twice).contains("cannot share"), "{twice}");
    }
    assert_eq!(error("alloc=f;free=f"), "`f` is named twice");
    assert!(error("alloc=f").ends_with("add `free=FUNCTION(ptr=0)`"));
    assert!(error("free=f").ends_with("add `alloc=FUNCTION(size=0)`"));
    assert!(error("").contains("needs a function that allocates"));
}
