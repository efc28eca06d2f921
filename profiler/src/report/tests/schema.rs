//! docs/hscope.proto against the code: another implementation of protobuf reads every message by the schema, knows all of
//! its fields, and writes it back.

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};

use super::{recordings, windows};
use crate::report::recording::{
    Counters, Recording,
    chunk::{self, FILE_HEADER, Kind},
    message::{Account, Changes, Definitions, End, Head, Quality, Snapshot},
};

fn pool() -> DescriptorPool {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let files = protox::compile([docs.join("hscope.proto")], [docs]).unwrap();
    DescriptorPool::from_file_descriptor_set(files).unwrap()
}

/// Reads a message by the schema, and by the code what the schema's reader writes.
fn check<M: Message + Default + PartialEq + std::fmt::Debug>(
    pool: &DescriptorPool,
    name: &str,
    plain: &[u8],
) {
    let descriptor = pool.get_message_by_name(&format!("heapscope.recording.v1.{name}")).unwrap();
    let dynamic = DynamicMessage::decode(descriptor, plain).unwrap();
    check_known(name, &dynamic);
    assert_eq!(M::decode(dynamic.encode_to_vec().as_slice()).unwrap(), M::decode(plain).unwrap(), "{name}");
}

fn check_known(name: &str, message: &DynamicMessage) {
    let unknown: Vec<u32> = message.unknown_fields().map(|field| field.number()).collect();
    assert_eq!(unknown, Vec::<u32>::new(), "the schema lacks fields of {name}");
    for (field, value) in message.fields() {
        if let Some(inner) = value.as_message() {
            check_known(field.name(), inner);
        }
        for inner in value.as_list().into_iter().flatten().filter_map(prost_reflect::Value::as_message) {
            check_known(field.name(), inner);
        }
    }
}

#[test]
fn the_schema_is_that_of_the_code() {
    let pool = pool();
    let mut profile = windows::in_windows();
    profile.mapped = Some(recordings::mapped());
    profile.python = Some(recordings::python());
    let grow = |at: u64| Counters {
        alloc_objects: at,
        alloc_space: 100 * at * at,
        inuse_objects: at,
        inuse_space: at * at,
        temporary_objects: at,
        errors: [at, at + 1, at + 2, at + 3],
    };
    let (bytes, _) = recordings::recorded(&vec![(1..6).map(grow).collect()], true, Some(&profile));
    assert!(Recording::read(bytes.clone()).unwrap().is_closed());
    let mut kinds = 0;
    for chunk in chunk::chunks(&bytes, FILE_HEADER) {
        let chunk = chunk.unwrap().0;
        let plain = chunk.plain().unwrap();
        kinds += 1;
        match chunk.kind {
            Kind::Head => check::<Head>(&pool, "Head", &plain),
            Kind::Definitions => check::<Definitions>(&pool, "Definitions", &plain),
            Kind::Snapshot => {
                check::<Snapshot>(&pool, "Snapshot", &plain);
                let changes = Snapshot::decode(plain.as_slice()).unwrap().changes.unwrap();
                check::<Changes>(&pool, "Changes", &changes);
            }
            Kind::Quality => check::<Quality>(&pool, "Quality", &plain),
            Kind::Account => check::<Account>(&pool, "Account", &plain),
            Kind::End => check::<End>(&pool, "End", &plain),
            Kind::Unknown(_) => unreachable!(),
        }
    }
    assert!(kinds > 8, "{kinds} chunks");
}
