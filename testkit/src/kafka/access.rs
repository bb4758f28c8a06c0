//! Who may do what on a broker: ACLs and SCRAM passwords, through librdkafka's admin calls, which the crate does not wrap.

use super::Kafka;
use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::AdminClient;
use rdkafka::bindings as rd;
use rdkafka::client::DefaultClientContext;
use std::ffi::{CStr, CString, c_char};
use std::ptr::null;

const LIMIT_MS: i32 = 15_000;
const SCRAM_ITERATIONS: i32 = 4096;

/// What an ACL is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// A topic.
    Topic,
    /// A consumer group.
    Group,
    /// A transactional id.
    TransactionalId,
}

/// One operation that one user may do on one resource, from any host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// `User:name`.
    pub principal: String,
    /// Of which kind.
    pub resource: Resource,
    /// Its name.
    pub name: String,
    /// The name is a prefix.
    pub prefixed: bool,
    /// As Kafka's tools write it: `Read`, `DescribeConfigs`.
    pub operation: String,
}

impl Kafka {
    /// Allows these operations; the broker knows them when this returns or a moment later.
    pub fn allow(&self, acls: &[Acl]) -> Result<()> {
        let create = |admin: &Admin, queue| {
            let mut bindings = acls.iter().map(binding).collect::<Result<Vec<_>>>()?;
            // SAFETY: client and queue live until the call returned its event; librdkafka copies the bindings.
            unsafe {
                rd::rd_kafka_CreateAcls(admin.native(), bindings.as_mut_ptr(), bindings.len(), null(), queue);
                rd::rd_kafka_AclBinding_destroy_array(bindings.as_mut_ptr(), bindings.len());
            }
            Ok(())
        };
        self.administer("create ACLs", create, |event| {
            let mut count = 0;
            // SAFETY: the event is a result of CreateAcls; the array and its elements live as long as the event.
            unsafe {
                let results = rd::rd_kafka_CreateAcls_result_acls(rd::rd_kafka_event_CreateAcls_result(event), &raw mut count);
                (0..count).try_for_each(|n| check(rd::rd_kafka_acl_result_error(*results.add(n))))
            }
        })
    }

    /// Takes them back.
    pub fn forbid(&self, acls: &[Acl]) -> Result<()> {
        let delete = |admin: &Admin, queue| {
            // A filter is a binding that may leave things open; ours leave nothing open.
            let mut filters = acls.iter().map(binding).collect::<Result<Vec<_>>>()?;
            // SAFETY: as in `allow`.
            unsafe {
                rd::rd_kafka_DeleteAcls(admin.native(), filters.as_mut_ptr(), filters.len(), null(), queue);
                rd::rd_kafka_AclBinding_destroy_array(filters.as_mut_ptr(), filters.len());
            }
            Ok(())
        };
        self.administer("delete ACLs", delete, |event| {
            let mut count = 0;
            // SAFETY: the event is a result of DeleteAcls; the arrays and their elements live as long as the event.
            unsafe {
                let responses = rd::rd_kafka_DeleteAcls_result_responses(rd::rd_kafka_event_DeleteAcls_result(event), &raw mut count);
                (0..count).try_for_each(|n| {
                    let (response, mut deleted) = (*responses.add(n), 0);
                    check(rd::rd_kafka_DeleteAcls_result_response_error(response))?;
                    rd::rd_kafka_DeleteAcls_result_response_matching_acls(response, &raw mut deleted);
                    ensure!(deleted == 1, "{:?} matches {deleted} ACLs", acls.get(n));
                    Ok(())
                })
            }
        })
    }

    /// Gives a user this password for SCRAM-SHA-512.
    pub fn set_password(&self, user: &str, password: &str) -> Result<()> {
        let name = CString::new(user)?;
        let alter = |admin: &Admin, queue| {
            // SAFETY: name and password outlive the calls, which copy them; null asks for a random salt.
            unsafe {
                let mut change = rd::rd_kafka_UserScramCredentialUpsertion_new(
                    name.as_ptr(),
                    rd::rd_kafka_ScramMechanism_t::RD_KAFKA_SCRAM_MECHANISM_SHA_512,
                    SCRAM_ITERATIONS,
                    password.as_ptr(),
                    password.len(),
                    null(),
                    0,
                );
                rd::rd_kafka_AlterUserScramCredentials(admin.native(), &raw mut change, 1, null(), queue);
                rd::rd_kafka_UserScramCredentialAlteration_destroy(change);
            }
            Ok(())
        };
        self.administer("set a password", alter, |event| {
            let mut count = 0;
            // SAFETY: the event is a result of AlterUserScramCredentials; the array and its elements live as long as the event.
            unsafe {
                let result = rd::rd_kafka_event_AlterUserScramCredentials_result(event);
                let responses = rd::rd_kafka_AlterUserScramCredentials_result_responses(result, &raw mut count);
                (0..count).try_for_each(|n| check(rd::rd_kafka_AlterUserScramCredentials_result_response_error(*responses.add(n))))
            }
        })
    }

    /// One admin call: `ask` sends it, `read` looks into its answer.
    fn administer(
        &self,
        what: &str,
        ask: impl FnOnce(&Admin, *mut rd::rd_kafka_queue_t) -> Result<()>,
        read: impl FnOnce(*mut rd::rd_kafka_event_t) -> Result<()>,
    ) -> Result<()> {
        let admin = Admin(self.client_config().create()?);
        // SAFETY: the client lives until the end of this function; queue and event are destroyed once, after their last use.
        let outcome = unsafe {
            let queue = rd::rd_kafka_queue_new(admin.native());
            let outcome = ask(&admin, queue).and_then(|()| {
                let event = rd::rd_kafka_queue_poll(queue, LIMIT_MS);
                ensure!(!event.is_null(), "no answer within {LIMIT_MS} ms");
                let outcome = match rd::rd_kafka_event_error(event) {
                    rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => read(event),
                    _ => Err(anyhow::anyhow!(words(rd::rd_kafka_event_error_string(event)))),
                };
                rd::rd_kafka_event_destroy(event);
                outcome
            });
            rd::rd_kafka_queue_destroy(queue);
            outcome
        };
        outcome.with_context(|| format!("could not {what}"))
    }
}

struct Admin(AdminClient<DefaultClientContext>);

impl Admin {
    fn native(&self) -> *mut rd::rd_kafka_t {
        self.0.inner().native_ptr()
    }
}

fn binding(acl: &Acl) -> Result<*mut rd::rd_kafka_AclBinding_t> {
    use rd::rd_kafka_AclOperation_t as Operation;
    use rd::rd_kafka_ResourcePatternType_t as Pattern;
    use rd::rd_kafka_ResourceType_t as Type;
    let resource = match acl.resource {
        Resource::Topic => Type::RD_KAFKA_RESOURCE_TOPIC,
        Resource::Group => Type::RD_KAFKA_RESOURCE_GROUP,
        Resource::TransactionalId => Type::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID,
    };
    let operation = match acl.operation.as_str() {
        "Read" => Operation::RD_KAFKA_ACL_OPERATION_READ,
        "Write" => Operation::RD_KAFKA_ACL_OPERATION_WRITE,
        "Create" => Operation::RD_KAFKA_ACL_OPERATION_CREATE,
        "Alter" => Operation::RD_KAFKA_ACL_OPERATION_ALTER,
        "Describe" => Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE,
        "DescribeConfigs" => Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS,
        "AlterConfigs" => Operation::RD_KAFKA_ACL_OPERATION_ALTER_CONFIGS,
        other => bail!("{other} is not an operation that tests use"),
    };
    let pattern = if acl.prefixed { Pattern::RD_KAFKA_RESOURCE_PATTERN_PREFIXED } else { Pattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL };
    let allow = rd::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW;
    let (name, principal) = (CString::new(acl.name.as_str())?, CString::new(acl.principal.as_str())?);
    let mut why = [0; 256];
    // SAFETY: the texts outlive the call, which copies them; `why` is as long as is said.
    let binding = unsafe {
        rd::rd_kafka_AclBinding_new(
            resource,
            name.as_ptr(),
            pattern,
            principal.as_ptr(),
            c"*".as_ptr(),
            operation,
            allow,
            why.as_mut_ptr(),
            why.len(),
        )
    };
    // SAFETY: librdkafka ends what it writes with NUL.
    ensure!(!binding.is_null(), "{acl:?}: {}", unsafe { words(why.as_ptr()) });
    Ok(binding)
}

/// # Safety
/// `error` is null or an error of librdkafka.
unsafe fn check(error: *const rd::rd_kafka_error_t) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: not null, and the caller's promise.
    unsafe {
        ensure!(
            rd::rd_kafka_error_code(error) == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
            "{}",
            words(rd::rd_kafka_error_string(error))
        );
    }
    Ok(())
}

/// # Safety
/// `text` is null or ends with NUL.
unsafe fn words(text: *const c_char) -> String {
    if text.is_null() {
        return "no reason given".to_owned();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
