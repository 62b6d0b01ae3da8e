//! Creates ACLs, by librdkafka's C interface: rdkafka has none for them.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::ptr;

use rdkafka::ClientConfig;
use rdkafka::bindings as sys;
use rdkafka::producer::{BaseProducer, Producer};
use ringback_log::kafka::acl::{Grant, Operation, Resource};

fn binding(user: &str, grant: &Grant) -> *mut sys::rd_kafka_AclBinding_t {
    use sys::rd_kafka_AclOperation_t as Op;
    use sys::rd_kafka_ResourcePatternType_t as Pattern;
    use sys::rd_kafka_ResourceType_t as Type;
    let name = CString::new(&*grant.name).unwrap();
    let principal = CString::new(format!("User:{user}")).unwrap();
    let resource = match grant.resource {
        Resource::Topic => Type::RD_KAFKA_RESOURCE_TOPIC,
        Resource::Group => Type::RD_KAFKA_RESOURCE_GROUP,
        Resource::TransactionalId => Type::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID,
    };
    let pattern = match grant.prefixed {
        true => Pattern::RD_KAFKA_RESOURCE_PATTERN_PREFIXED,
        false => Pattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL,
    };
    let operation = match grant.operation {
        Operation::Read => Op::RD_KAFKA_ACL_OPERATION_READ,
        Operation::Write => Op::RD_KAFKA_ACL_OPERATION_WRITE,
        Operation::Create => Op::RD_KAFKA_ACL_OPERATION_CREATE,
        Operation::Describe => Op::RD_KAFKA_ACL_OPERATION_DESCRIBE,
        Operation::DescribeConfigs => Op::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS,
    };
    let mut reason = [0; 256];
    // SAFETY: all texts end with a NUL and are copied; `reason` has the length given.
    let binding = unsafe {
        sys::rd_kafka_AclBinding_new(
            resource,
            name.as_ptr(),
            pattern,
            principal.as_ptr(),
            c"*".as_ptr(),
            operation,
            sys::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
            reason.as_mut_ptr(),
            reason.len(),
        )
    };
    assert!(!binding.is_null());
    binding
}

/// Allows a user these things, on a listener where we may say so.
pub(crate) fn allow(bootstrap: &str, user: &str, grants: &[Grant]) {
    let client: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    let mut bindings: Vec<_> = grants.iter().map(|grant| binding(user, grant)).collect();
    // SAFETY: client, bindings and queue are valid until the end of this function, where each is
    // destroyed once; the results live in the event.
    unsafe {
        let queue = sys::rd_kafka_queue_new(client.client().native_ptr());
        let (list, count) = (bindings.as_mut_ptr(), bindings.len());
        sys::rd_kafka_CreateAcls(
            client.client().native_ptr(),
            list,
            count,
            ptr::null(),
            queue,
        );
        let event = sys::rd_kafka_queue_poll(queue, 60_000);
        assert!(!event.is_null(), "no answer about ACLs");
        let reason = CStr::from_ptr(sys::rd_kafka_event_error_string(event));
        assert_eq!(sys::rd_kafka_event_error(event) as i32, 0, "{reason:?}");
        let result = sys::rd_kafka_event_CreateAcls_result(event);
        let mut count = 0;
        let results = sys::rd_kafka_CreateAcls_result_acls(result, &mut count);
        for index in 0..count {
            let error = sys::rd_kafka_acl_result_error(*results.add(index));
            assert!(error.is_null(), "an ACL of {user} was refused");
        }
        sys::rd_kafka_event_destroy(event);
        sys::rd_kafka_queue_destroy(queue);
        for binding in bindings {
            sys::rd_kafka_AclBinding_destroy(binding);
        }
    }
}
