//! Secrets that are parameters: that they are read decrypted and seldom, and that it is told why one cannot be had.

use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::ParameterType;
use sshjob::adapter::aws::parameters::SsmParameters;
use sshjob::port::{KeyReadError, Parameters as _};

use super::config;
use crate::support::detour::{Detour, Fate};
use crate::support::emulator::Emulator;
use crate::support::hook::{Answer, Hook};

#[tokio::test]
async fn parameter_is_read_decrypted_and_again_after_some_minutes() {
    let Some(emulator) = Emulator::ministack() else { return };
    let direct = Client::new(&config(&emulator.url()).await);
    let put = async |value: &str| {
        let request = direct.put_parameter().name("/app/token").value(value).overwrite(true);
        request.r#type(ParameterType::SecureString).send().await.unwrap();
    };
    let detour = Detour::to(emulator.address(), |_, _| Fate::Passes);
    let parameters = SsmParameters::new(Client::new(&config(&detour.url()).await));
    put("first").await;
    for _ in 0..3 {
        assert_eq!(parameters.read_parameter("/app/token").await.unwrap().as_str(), "first");
    }
    assert_eq!(detour.seen().len(), 1);
    put("second").await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(5)).await;
    tokio::time::resume();
    assert_eq!(parameters.read_parameter("/app/token").await.unwrap().as_str(), "second");
    let error = parameters.read_parameter("/app/none").await.unwrap_err();
    let KeyReadError::Refused(why) = error else { panic!("{error:?}") };
    assert!(why.starts_with("the parameter `/app/none` cannot be had: `ssm:GetParameter` on `/app/none`: "), "{why}");
}

#[tokio::test]
async fn parameter_that_may_not_be_read_is_refused_and_one_that_nobody_answers_for_may_come() {
    let cases = [
        ("400 Bad Request", r#"{"__type":"AccessDeniedException","message":"no"}"#, true),
        ("400 Bad Request", r#"{"__type":"ParameterNotFound"}"#, true),
        ("200 OK", r#"{"Parameter":{"Name":"/app/token"}}"#, true),
        ("400 Bad Request", r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#, false),
        ("400 Bad Request", r#"{"__type":"ExpiredTokenException","message":"expired"}"#, false),
        ("500 Internal Server Error", "{}", false),
    ];
    for (status, body, is_refused) in cases {
        let hook = Hook::start(Answer::Status(status, body.to_owned()));
        let parameters = SsmParameters::new(Client::new(&config(&hook.url("")).await));
        let error = parameters.read_parameter("/app/token").await.unwrap_err();
        assert_eq!(matches!(error, KeyReadError::Refused(_)), is_refused, "{body}: {error}");
        assert!(error.to_string().contains("`/app/token`"), "{error}");
    }
}
