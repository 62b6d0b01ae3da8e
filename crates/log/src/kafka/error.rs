//! What librdkafka says, in the words of the log.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use ringback_core::log::{AppendError, LogError};

/// Whether this stays until somebody changes something.
pub(super) fn is_permanent(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication
            | Code::SSL
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature
            | Code::InvalidConfig
            | Code::InvalidTopic
            | Code::PolicyViolation
            | Code::InvalidReplicationFactor
            | Code::InvalidPartitions
            | Code::Fatal
    )
}

/// What a person can do about it.
pub(super) fn advice(code: RDKafkaErrorCode) -> &'static str {
    use RDKafkaErrorCode as Code;
    match code {
        Code::AllBrokersDown
        | Code::BrokerTransportFailure
        | Code::Resolve
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::TimedOutQueue => {
            "; check that the brokers run, that log.kafka.bootstrap names them, and that \
             log.kafka.security_protocol is what they speak there"
        }
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            "; create the topics"
        }
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => "; grant it in Kafka's ACLs",
        Code::SaslAuthenticationFailed | Code::Authentication => {
            "; check [log.kafka.sasl]: mechanism, user and password"
        }
        Code::SSL => "; check log.kafka.security_protocol and [log.kafka.tls]",
        _ => "",
    }
}

/// An error of an operation other than an append.
pub(super) fn log_error(doing: impl Into<String>, error: &KafkaError) -> LogError {
    if let KafkaError::ClientConfig(_, _, name, _) = error {
        // Its text repeats the value, which may be secret.
        return LogError::permanent(doing, format!("librdkafka refuses the value of {name}"));
    }
    match error.rdkafka_error_code() {
        Some(code) => code_error(doing, code),
        None => LogError::retriable(doing, error),
    }
}

/// The same for a bare code.
pub(super) fn code_error(doing: impl Into<String>, code: RDKafkaErrorCode) -> LogError {
    LogError {
        doing: doing.into(),
        reason: format!("{code}{}", advice(code)),
        retriable: !is_permanent(code),
    }
}

/// An append that was not taken or not acknowledged.
pub(super) fn append_error(topic: &str, error: &KafkaError) -> AppendError {
    use RDKafkaErrorCode as Code;
    let topic = topic.to_owned();
    let Some(code) = error.rdkafka_error_code() else {
        let reason = error.to_string();
        return AppendError::Refused { topic, reason };
    };
    let reason = format!("{code}{}", advice(code));
    match code {
        Code::QueueFull => AppendError::QueueFull,
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidArgument
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::InvalidTopic
        | Code::PolicyViolation
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicOrPartition
        | Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed => AppendError::Refused { topic, reason },
        _ => AppendError::Unavailable { topic, reason },
    }
}
