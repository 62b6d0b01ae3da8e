//! `/v1/projection`: how the projection is, and building it anew.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ringback_core::log::Log;
use serde_json::{Value, json};

use crate::problem::Problem;
use crate::state::{Admin, AdminState};

pub(crate) async fn show<L: Log>(
    State(state): State<AdminState<L>>,
) -> Result<Json<Value>, Problem> {
    let admin = state.admin();
    let Some(projection) = admin.projection.get() else {
        return Ok(Json(json!({ "state": "none" })));
    };
    let status = projection.status();
    let state = match &status.failing {
        Some(_) => "failing",
        None if status.rebuild => "rebuilding",
        None if !status.leading => "reading",
        None if status.told.as_of.is_none() => "catching_up",
        None => "projecting",
    };
    Ok(Json(json!({
        "state": state,
        "database": status.database,
        "as_of": status.told.as_of,
        "behind": status.told.behind,
        "lost": status.told.lost,
        "unreadable": status.told.unreadable,
        "failing_since": status.failing.as_ref().map(|(since, _)| since),
        "error": status.failing.as_ref().map(|(_, error)| error.to_string()),
        "log_error": status.log_error.map(|error| error.to_string()),
    })))
}

pub(crate) async fn rebuild<L: Log>(
    State(state): State<AdminState<L>>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let told = |admin: &Admin<L>| {
        admin.projection()?;
        admin.tell_of("projection.rebuild", "projection", Value::Null)
    };
    state.run(told).await?;
    let projection = state.admin().projection()?;
    if !projection.rebuild() {
        let detail = "another administration projects; ask that one to rebuild";
        return Err(Problem::conflict("not_projecting", detail));
    }
    tracing::info!("somebody asked for the projection to be rebuilt");
    Ok((StatusCode::ACCEPTED, Json(json!({ "state": "rebuilding" }))))
}
