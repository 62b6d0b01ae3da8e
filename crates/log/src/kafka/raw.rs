//! The few things that `rdkafka` has no safe and non-panicking way for: headers and commit
//! metadata that are not UTF-8, how a commit ended, the offset of an end-of-partition event, and
//! handing a client its token before it asks.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_void};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;
use ringback_core::log::{Header, Offset};
use smallvec::SmallVec;

use super::context::{Member, Plain, log_line};
use super::oauth::{Token, Tokens};

/// The headers of one record. Sixteen are more than any record of ours has.
pub(super) type Headers<'a> = SmallVec<[Header<'a>; 16]>;

const NO_ERROR: sys::rd_kafka_resp_err_t = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// The headers of a message, without those that have no value or whose name is not UTF-8.
/// (`rdkafka`'s own reader panics at such a name.)
pub(super) fn headers<'m>(message: &'m BorrowedMessage<'_>) -> Headers<'m> {
    // SAFETY: the message is valid while it is borrowed, and so are its headers, which it owns. It
    // was made by this thread's poll and is not shared, so parsing them in place is no race.
    unsafe { headers_of(message.ptr()) }
}

/// # Safety
/// `message` must be valid, and used by no other thread, for `'m`.
unsafe fn headers_of<'m>(message: *const sys::rd_kafka_message_t) -> Headers<'m> {
    let mut found = Headers::new();
    let mut list = ptr::null_mut();
    // SAFETY: by the contract of this function; `list` is written only on success.
    if unsafe { sys::rd_kafka_message_headers(message, &mut list) } != NO_ERROR {
        return found;
    }
    // SAFETY: `list` belongs to the message.
    let count = unsafe { sys::rd_kafka_header_cnt(list) };
    for index in 0..count {
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: `list` is valid and the others are ours; what they are set to lives in the message.
        let result =
            unsafe { sys::rd_kafka_header_get_all(list, index, &mut name, &mut value, &mut size) };
        if result != NO_ERROR || name.is_null() || value.is_null() {
            continue;
        }
        // SAFETY: librdkafka ends the name with a NUL, and the value has `size` bytes.
        let (name, value) = unsafe {
            (
                CStr::from_ptr(name),
                slice::from_raw_parts(value.cast::<u8>(), size),
            )
        };
        if let Ok(name) = name.to_str() {
            found.push(Header { name, value });
        }
    }
    found
}

/// The metadata of an element of a list; what is not UTF-8 is not ours and counts as none.
pub(super) fn metadata(list: &TopicPartitionList, index: usize) -> String {
    // SAFETY: the list is valid while it is borrowed.
    let list = unsafe { &*list.ptr() };
    if list.elems.is_null() || index >= usize::try_from(list.cnt).unwrap_or(0) {
        return String::new();
    }
    // SAFETY: `elems` has `cnt` elements, checked above.
    let element = unsafe { &*list.elems.add(index) };
    if element.metadata.is_null() {
        return String::new();
    }
    // SAFETY: `metadata` has `metadata_size` bytes.
    let bytes =
        unsafe { slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size) };
    std::str::from_utf8(bytes).unwrap_or_default().to_owned()
}

/// The first offset that the log had of a partition at the last fetch; asks nobody. `None`: not
/// known.
pub(super) fn log_start(
    consumer: &BaseConsumer<Member>,
    topic: &str,
    index: i32,
) -> Option<Offset> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is valid while it is borrowed, the name ends with a NUL, the rest is ours.
    let result = unsafe {
        let client = consumer.client().native_ptr();
        sys::rd_kafka_get_watermark_offsets(client, topic.as_ptr(), index, &mut low, &mut high)
    };
    (result == NO_ERROR && low >= 0).then_some(low)
}

/// A member of a group, as its coordinator tells.
pub(super) struct RawMember {
    pub(super) id: String,
    pub(super) host: String,
    pub(super) assignment: Vec<u8>,
}

/// Blocking: the members of a group. (`rdkafka`'s own reader panics at a name that is not UTF-8, and at a
/// list without groups.)
pub(super) fn members<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> Result<Vec<RawMember>, RDKafkaErrorCode> {
    let name = CString::new(group).map_err(|_| RDKafkaErrorCode::InvalidGroupId)?;
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let mut list: *const sys::rd_kafka_group_list = ptr::null();
    // SAFETY: the client is valid while it is borrowed, the name ends with a NUL, the rest is ours.
    let result = unsafe {
        sys::rd_kafka_list_groups(client.native_ptr(), name.as_ptr(), &raw mut list, millis)
    };
    if result != NO_ERROR {
        return Err(result.into());
    }
    if list.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: librdkafka gave the list to us; it is destroyed once, below, after all is copied.
    let found = unsafe { members_of(&*list) };
    // SAFETY: see above.
    unsafe { sys::rd_kafka_group_list_destroy(list) };
    Ok(found)
}

/// # Safety
/// The list must be one that librdkafka made and that is not destroyed yet.
unsafe fn members_of(list: &sys::rd_kafka_group_list) -> Vec<RawMember> {
    let mut found = Vec::new();
    for at in 0..usize::try_from(list.group_cnt).unwrap_or(0) {
        // SAFETY: there are `group_cnt` groups, and each has `member_cnt` members, with texts that end
        // with a NUL and an assignment of the size that is said.
        unsafe {
            let group = &*list.groups.add(at);
            for at in 0..usize::try_from(group.member_cnt).unwrap_or(0) {
                let member = &*group.members.add(at);
                let size = usize::try_from(member.member_assignment_size).unwrap_or(0);
                found.push(RawMember {
                    id: lossy(member.member_id),
                    host: lossy(member.client_host),
                    assignment: match member.member_assignment.is_null() {
                        true => Vec::new(),
                        false => slice::from_raw_parts(member.member_assignment.cast::<u8>(), size)
                            .to_vec(),
                    },
                });
            }
        }
    }
    found
}

/// # Safety
/// The text must be null, or end with a NUL.
unsafe fn lossy(text: *const std::ffi::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: by the contract of this function.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}

/// Begins a commit whose end is reported to `commit_callback`, from within `poll`. (`rdkafka`'s own
/// asynchronous commit never reports: librdkafka answers only where it was told to.)
pub(super) fn commit(
    consumer: &BaseConsumer<Member>,
    list: &TopicPartitionList,
) -> Result<(), RDKafkaErrorCode> {
    let client = consumer.client().native_ptr();
    // SAFETY: the client and the list are valid while they are borrowed, and the list is copied.
    // The queue is a reference of our own, given back once; librdkafka keeps one for the answer.
    let result = unsafe {
        let queue = sys::rd_kafka_queue_get_consumer(client);
        if queue.is_null() {
            return Err(RDKafkaErrorCode::UnknownGroup);
        }
        let result = sys::rd_kafka_commit_queue(client, list.ptr(), queue, None, ptr::null_mut());
        sys::rd_kafka_queue_destroy(queue);
        result
    };
    match result {
        NO_ERROR => Ok(()),
        error => Err(error.into()),
    }
}

/// Gives a client a token, or says why there is none. Clients that block before they are polled
/// would otherwise wait for the event in vain.
///
/// # Safety
/// `client` must be valid.
pub(super) unsafe fn set_token(client: *mut sys::rd_kafka_t, token: Result<Token, String>) {
    let failed = |reason: &str| {
        tracing::warn!(target: "ringback::kafka", "no token for the brokers: {reason}");
        if let Ok(reason) = CString::new(reason) {
            // SAFETY: the client is valid by the contract of this function; the text is copied.
            unsafe { sys::rd_kafka_oauthbearer_set_token_failure(client, reason.as_ptr()) };
        }
    };
    let token = match token {
        Ok(token) => token,
        Err(reason) => return failed(&reason),
    };
    let (Ok(value), Ok(principal)) = (CString::new(token.value), CString::new(token.principal))
    else {
        return failed("it has a NUL in it");
    };
    let mut reason = [0; 256];
    // SAFETY: the client is valid by the contract of this function, all texts end with a NUL and are
    // copied, and `reason` has the length that is given.
    let result = unsafe {
        sys::rd_kafka_oauthbearer_set_token(
            client,
            value.as_ptr(),
            token.expires_ms,
            principal.as_ptr(),
            ptr::null_mut(),
            0,
            reason.as_mut_ptr(),
            reason.len(),
        )
    };
    if result != NO_ERROR {
        // SAFETY: librdkafka ends what it writes with a NUL within the length given.
        let reason = unsafe { CStr::from_ptr(reason.as_ptr()) };
        failed(&reason.to_string_lossy());
    }
}

/// Gives a client the token that is in the file now, if it needs one.
pub(super) fn give_token<C: ClientContext>(client: &Client<C>, tokens: &Tokens) {
    if let Some(token) = tokens.current() {
        // SAFETY: the client is valid while it is borrowed.
        unsafe { set_token(client.native_ptr(), token) }
    }
}

/// The queue of a consumer of assigned partitions, with the events that `BaseConsumer` swallows.
pub(super) struct Queue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    // The queue must not outlive its client.
    _consumer: Arc<BaseConsumer<Plain>>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Queue {}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the queue is a reference of our own, given back once.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

impl Queue {
    /// The consumer's queue. `None` only without a group name.
    pub(super) fn of(consumer: &Arc<BaseConsumer<Plain>>) -> Option<Self> {
        // SAFETY: the client is valid while the consumer is.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Some(Self {
            queue: NonNull::new(queue)?,
            _consumer: consumer.clone(),
        })
    }

    /// The next event, waited for at most this long.
    pub(super) fn poll(&self, timeout: Duration) -> Option<Event> {
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is valid while we hold it; the event is ours to destroy.
        let event = unsafe { sys::rd_kafka_queue_poll(self.queue.as_ptr(), timeout) };
        NonNull::new(event).map(Event)
    }
}

/// An event of a [`Queue`].
pub(super) struct Event(NonNull<sys::rd_kafka_event_t>);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is ours, destroyed once.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

/// A record as librdkafka holds it, borrowed from its event.
pub(super) struct Fetched<'e> {
    pub(super) partition: i32,
    pub(super) offset: Offset,
    pub(super) at_millis: i64,
    pub(super) key: Option<&'e [u8]>,
    pub(super) value: Option<&'e [u8]>,
    pub(super) headers: Headers<'e>,
}

/// What an event says.
#[allow(
    clippy::large_enum_variant,
    reason = "lives on the stack for one call, and nearly always is a record"
)]
pub(super) enum Kind<'e> {
    /// A record.
    Record(Fetched<'e>),
    /// There is nothing between the records before and this offset, which is the end.
    End { partition: i32, offset: Offset },
    /// Something failed.
    Failed(RDKafkaErrorCode),
    /// A new token is wanted: [`give_token`] gives one.
    TokenWanted,
    /// What librdkafka counted, as JSON.
    Statistics(&'e [u8]),
    /// Nothing of interest.
    Other,
}

impl Event {
    /// What it says. To be called once: taking a record out moves the event on.
    pub(super) fn read(&mut self) -> Kind<'_> {
        let event = self.0.as_ptr();
        // SAFETY: the event is valid while we hold it; that goes for this whole function, and for
        // all that it borrows, since the event owns it.
        match unsafe { sys::rd_kafka_event_type(event) } {
            sys::RD_KAFKA_EVENT_FETCH => {
                // SAFETY: see above.
                let message = unsafe { sys::rd_kafka_event_message_next(event) };
                match NonNull::new(message.cast_mut()) {
                    // SAFETY: the message belongs to the event; `&mut self` keeps others away.
                    Some(message) => unsafe { record(message) },
                    None => Kind::Other,
                }
            }
            sys::RD_KAFKA_EVENT_ERROR => {
                // SAFETY: see above.
                let code = unsafe { sys::rd_kafka_event_error(event) };
                if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF {
                    // SAFETY: see above; the result is ours to destroy.
                    let place = unsafe { sys::rd_kafka_event_topic_partition(event) };
                    let Some(place) = NonNull::new(place) else {
                        return Kind::Other;
                    };
                    // SAFETY: just made, not null, destroyed once and not used after.
                    unsafe {
                        let (partition, offset) = (place.as_ref().partition, place.as_ref().offset);
                        sys::rd_kafka_topic_partition_destroy(place.as_ptr());
                        Kind::End { partition, offset }
                    }
                } else {
                    Kind::Failed(code.into())
                }
            }
            sys::RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH => Kind::TokenWanted,
            sys::RD_KAFKA_EVENT_STATS => {
                // SAFETY: see above.
                let json = unsafe { sys::rd_kafka_event_stats(event) };
                match json.is_null() {
                    true => Kind::Other,
                    // SAFETY: it ends with a NUL, and belongs to the event.
                    false => Kind::Statistics(unsafe { CStr::from_ptr(json) }.to_bytes()),
                }
            }
            sys::RD_KAFKA_EVENT_LOG => {
                // SAFETY: see above.
                unsafe { forward_log(event) };
                Kind::Other
            }
            _ => Kind::Other,
        }
    }
}

/// # Safety
/// `message` must be valid, and used by nobody else, for `'e`.
unsafe fn record<'e>(message: NonNull<sys::rd_kafka_message_t>) -> Kind<'e> {
    // SAFETY: by the contract of this function.
    let message = unsafe { &*message.as_ptr() };
    if message.err != NO_ERROR {
        return Kind::Failed(message.err.into());
    }
    let bytes = |data: *mut c_void, length: usize| {
        // SAFETY: key and payload are null or have that many bytes, and live in the message.
        (!data.is_null()).then(|| unsafe { slice::from_raw_parts(data.cast::<u8>(), length) })
    };
    let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: the message is valid.
    let at_millis = unsafe { sys::rd_kafka_message_timestamp(message, &mut kind) };
    Kind::Record(Fetched {
        partition: message.partition,
        offset: message.offset,
        at_millis,
        key: bytes(message.key, message.key_len),
        value: bytes(message.payload, message.len),
        // SAFETY: by the contract of this function.
        headers: unsafe { headers_of(message) },
    })
}

/// # Safety
/// `event` must be a valid log event.
unsafe fn forward_log(event: *mut sys::rd_kafka_event_t) {
    let (mut fac, mut text, mut level) = (ptr::null(), ptr::null(), 0);
    // SAFETY: by the contract of this function; what is set lives in the event.
    let result = unsafe { sys::rd_kafka_event_log(event, &mut fac, &mut text, &mut level) };
    if result != 0 || fac.is_null() || text.is_null() {
        return;
    }
    // SAFETY: both are NUL-terminated.
    let (fac, text) = unsafe { (CStr::from_ptr(fac), CStr::from_ptr(text)) };
    let level = match level {
        ..=2 => RDKafkaLogLevel::Critical,
        3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 | 6 => RDKafkaLogLevel::Info,
        _ => RDKafkaLogLevel::Debug,
    };
    log_line(level, &fac.to_string_lossy(), &text.to_string_lossy());
}
