//! What the brokers say that this user may do with topics and groups (KIP-430: every broker since 2.3 that has an
//! authorizer says so, one without allows everything). The crate does not wrap these two calls, librdkafka has them.

use super::rights::Operation;
use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

/// What a broker says of one topic or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These operations are allowed; others of [`Operation`] are not.
    Allowed(Vec<Operation>),
    /// It is there, and the broker does not say what is allowed.
    Unsaid,
    /// We may not even see whether it is there.
    Denied,
    /// It is not there.
    Absent,
    /// No answer: trouble that may pass.
    Unknown(Code),
}

/// By name. No topic is created by asking.
pub type Answers = BTreeMap<String, Answer>;

/// Asks for topics.
pub fn topics<C: ClientContext>(client: &Client<C>, names: &[&str], patience: Duration) -> Result<Answers, String> {
    // SAFETY: as `describe_topics` promises.
    let read = |topic| unsafe {
        let mut allowed = 0;
        let operations = rd::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut allowed);
        Some(answer(rd::rd_kafka_TopicDescription_error(topic), operations, allowed))
    };
    describe_topics(client, names, patience, read)
}

/// The ids of topics, by name: another id under the same name is another topic. A topic that is not there, or whose brokers know no
/// ids, is left out.
pub fn topic_ids<C: ClientContext>(client: &Client<C>, names: &[&str], patience: Duration) -> Result<BTreeMap<String, String>, String> {
    // SAFETY: as `describe_topics` promises.
    let read = |topic| unsafe {
        let id = rd::rd_kafka_TopicDescription_topic_id(topic);
        let is_known =
            !id.is_null() && (rd::rd_kafka_Uuid_most_significant_bits(id), rd::rd_kafka_Uuid_least_significant_bits(id)) != (0, 0);
        is_known.then(|| text(rd::rd_kafka_Uuid_base64str(id)))
    };
    describe_topics(client, names, patience, read)
}

/// What `read` finds in the description of each topic, which lives as long as that call.
fn describe_topics<C: ClientContext, A>(
    client: &Client<C>,
    names: &[&str],
    patience: Duration,
    read: impl Fn(*const rd::rd_kafka_TopicDescription_t) -> Option<A>,
) -> Result<BTreeMap<String, A>, String> {
    let ask = |native, names: &mut Vec<*const c_char>, options: *mut rd::rd_kafka_AdminOptions_t, queue| {
        // SAFETY: the names, the options and the queue outlive the call, which copies what it needs.
        unsafe {
            let collection = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            rd::rd_kafka_DescribeTopics(native, collection, options, queue);
            rd::rd_kafka_TopicCollection_destroy(collection);
        }
    };
    // SAFETY: `describe` calls this with the event that answers `DescribeTopics`; all pointers live as long as it.
    let each = |event| unsafe {
        let mut count = 0;
        let found = rd::rd_kafka_DescribeTopics_result_topics(rd::rd_kafka_event_DescribeTopics_result(event), &raw mut count);
        let topics = (0..count).map(|n| *found.add(n));
        topics.filter_map(|topic| Some((text(rd::rd_kafka_TopicDescription_name(topic)), read(topic)?))).collect()
    };
    describe(client, names, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, patience, ask, each)
}

/// Asks for consumer groups.
pub fn groups<C: ClientContext>(client: &Client<C>, names: &[&str], patience: Duration) -> Result<Answers, String> {
    let ask = |native, names: &mut Vec<*const c_char>, options: *mut rd::rd_kafka_AdminOptions_t, queue| {
        // SAFETY: as for topics.
        unsafe { rd::rd_kafka_DescribeConsumerGroups(native, names.as_mut_ptr(), names.len(), options, queue) }
    };
    // SAFETY: as for topics, with the event that answers `DescribeConsumerGroups`.
    let read = |event| unsafe {
        let mut count = 0;
        let result = rd::rd_kafka_event_DescribeConsumerGroups_result(event);
        let found = rd::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
        let each = (0..count).map(|n| *found.add(n)).map(|group| {
            let mut allowed = 0;
            let operations = rd::rd_kafka_ConsumerGroupDescription_authorized_operations(group, &raw mut allowed);
            let answer = answer(rd::rd_kafka_ConsumerGroupDescription_error(group), operations, allowed);
            (text(rd::rd_kafka_ConsumerGroupDescription_group_id(group)), answer)
        });
        each.collect()
    };
    describe(client, names, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, patience, ask, read)
}

/// One admin call from its options to the end of its answer.
fn describe<C: ClientContext, A: Default>(
    client: &Client<C>,
    names: &[&str],
    call: rd::rd_kafka_admin_op_t,
    patience: Duration,
    ask: impl FnOnce(*mut rd::rd_kafka_t, &mut Vec<*const c_char>, *mut rd::rd_kafka_AdminOptions_t, *mut rd::rd_kafka_queue_t),
    read: impl FnOnce(*mut rd::rd_kafka_event_t) -> A,
) -> Result<A, String> {
    if names.is_empty() {
        return Ok(A::default());
    }
    let owned: Vec<CString> = names.iter().map(|name| CString::new(*name)).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    let mut pointers: Vec<*const c_char> = owned.iter().map(|name| name.as_ptr()).collect();
    let patience_ms = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    let mut why = [0; 256];
    let native = client.native_ptr();
    // SAFETY: the client lives until the end of this function. Options, queue, error and event are destroyed once, each after
    // its last use; the queue answers every call with one event, at the latest when the call's time is up.
    unsafe {
        let options = rd::rd_kafka_AdminOptions_new(native, call);
        rd::rd_kafka_AdminOptions_set_request_timeout(options, patience_ms, why.as_mut_ptr(), why.len());
        let refused = rd::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        if !refused.is_null() {
            rd::rd_kafka_error_destroy(refused);
        }
        let queue = rd::rd_kafka_queue_new(native);
        ask(native, &mut pointers, options, queue);
        let event = rd::rd_kafka_queue_poll(queue, patience_ms.saturating_add(1_000));
        let outcome = if event.is_null() {
            Err("no answer".to_owned())
        } else if rd::rd_kafka_event_error(event) == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            Ok(read(event))
        } else {
            Err(text(rd::rd_kafka_event_error_string(event)))
        };
        if !event.is_null() {
            rd::rd_kafka_event_destroy(event);
        }
        rd::rd_kafka_queue_destroy(queue);
        rd::rd_kafka_AdminOptions_destroy(options);
        outcome
    }
}

/// # Safety
/// `error` is null or an error, `operations` null or an array of `count`.
unsafe fn answer(error: *const rd::rd_kafka_error_t, operations: *const rd::rd_kafka_AclOperation_t, count: usize) -> Answer {
    // SAFETY: the caller's promise.
    let code = if error.is_null() { Code::NoError } else { unsafe { rd::rd_kafka_error_code(error) }.into() };
    match code {
        Code::NoError if operations.is_null() || count == 0 => Answer::Unsaid,
        // SAFETY: not null, and the caller's promise.
        Code::NoError => Answer::Allowed((0..count).filter_map(|n| operation(unsafe { *operations.add(n) })).collect()),
        Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed => Answer::Denied,
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::GroupIdNotFound => Answer::Absent,
        code => Answer::Unknown(code),
    }
}

fn operation(operation: rd::rd_kafka_AclOperation_t) -> Option<Operation> {
    use rd::rd_kafka_AclOperation_t as O;
    match operation {
        O::RD_KAFKA_ACL_OPERATION_READ => Some(Operation::Read),
        O::RD_KAFKA_ACL_OPERATION_WRITE => Some(Operation::Write),
        O::RD_KAFKA_ACL_OPERATION_CREATE => Some(Operation::Create),
        O::RD_KAFKA_ACL_OPERATION_ALTER => Some(Operation::Alter),
        O::RD_KAFKA_ACL_OPERATION_DESCRIBE => Some(Operation::Describe),
        O::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some(Operation::DescribeConfigs),
        O::RD_KAFKA_ACL_OPERATION_ALTER_CONFIGS => Some(Operation::AlterConfigs),
        _ => None,
    }
}

/// # Safety
/// `text` is null or ends with NUL.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
