//! Asking what becomes of a packet.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::routes::{Failure, blocking};
use crate::intent::Intent;
use crate::program::policy::{Question, protocol_number};
use crate::refusal::Refusal;
use crate::show::explain::ExplainView;

/// A packet that might be sent.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// A pod (`namespace/name`, or its name), a host endpoint, `host`, or an address.
    pub from: String,
    /// The same.
    pub to: String,
    /// `tcp`, `udp`, `sctp`, `udplite`, `icmp`, or a number.
    pub protocol: String,
    /// The target port.
    #[serde(default)]
    pub port: u16,
    /// The source port.
    #[serde(default)]
    pub source_port: u16,
    /// The type of ICMP, and a code behind a slash: `8`, or `3/4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<String>,
}

impl ExplainRequest {
    fn question(self) -> Result<Question, Refusal> {
        let protocol = protocol_number(&self.protocol).ok_or_else(|| {
            let protocol = self.protocol.escape_debug();
            Refusal::new(format!(
                "`{protocol}` is no protocol; expected tcp, udp, sctp, udplite, icmp or a number"
            ))
        })?;
        let port = match &self.icmp {
            None => self.port,
            Some(text) => {
                let (kind, code) = text.split_once('/').unwrap_or((text, "0"));
                let number = |text: &str| {
                    text.parse::<u8>().map_err(|_| {
                        let text = text.escape_debug();
                        Refusal::new(format!("`{text}` is no ICMP type or code; expected 8, or 3/4"))
                    })
                };
                u16::from_be_bytes([number(kind)?, number(code)?])
            }
        };
        Ok(Question {
            from: self.from,
            to: self.to,
            protocol,
            source_port: self.source_port,
            port,
        })
    }
}

/// What becomes of a packet, and which policies decide, without sending it.
#[utoipa::path(
    post, path = "/v1/explain", request_body = ExplainRequest,
    responses((status = 200, body = ExplainView), (status = 400, body = Refusal), (status = 422, body = Refusal))
)]
pub(super) async fn post_explain(State(intent): State<Arc<Intent>>, body: Bytes) -> Result<Json<ExplainView>, Failure> {
    let request: ExplainRequest = serde_json::from_slice(&body).map_err(|error| {
        let example = r#"{"from":"shop/web","to":"10.0.0.2","protocol":"tcp","port":80}"#;
        let sentence = format!("the question is not understood: {error}; expected {example}");
        Failure::new(StatusCode::BAD_REQUEST, sentence)
    })?;
    let question = request.question()?;
    Ok(Json(
        blocking(intent, move |intent| intent.plane().explain(&question)).await??,
    ))
}
