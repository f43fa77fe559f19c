//! The fleet's processes, as they say of themselves.

use axum::extract::State;
use axum::response::Json;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Answer, Refusals, Shared};
use crate::coordinate::{members, slots};
use crate::model::code::Fault;
use crate::model::fleet::{FleetRole, Lag, Sheet};
use crate::model::slot::Lent;
use crate::model::time::Timestamp;
use crate::serve::access::Viewer;
use crate::serve::fleet::Surface;

/// A process of the fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberView {
    /// Whether it was heard of in the last seconds.
    pub alive: bool,
    /// Seconds since it was heard of.
    pub heard_seconds_ago: f64,
    /// What it says of itself.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub sheet: Sheet,
}

/// Who may hold sessions of an account that allows only a few.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SlotView {
    /// The account.
    pub account: String,
    /// The worker that has it.
    pub worker: String,
    /// Since when, in milliseconds since 1970.
    #[schema(value_type = i64)]
    pub since: Timestamp,
    /// Until when, unless it is lent on.
    #[schema(value_type = i64)]
    pub until: Timestamp,
}

/// The fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FleetView {
    /// Its processes, by role; embedded, one process has all roles and none is listed.
    pub members: Vec<MemberView>,
    /// The worker that leads, when one says so.
    pub leader: Option<String>,
    /// Since when, in milliseconds since 1970.
    #[schema(value_type = Option<i64>)]
    pub leads_since: Option<Timestamp>,
    /// Tokens that wait in the queues, as the leader last saw them.
    #[schema(value_type = Option<Object>)]
    pub lag: Option<Lag>,
    /// Partitions of the delivery topic that somebody owns.
    pub partitions_owned: u32,
    /// Bind slots that are lent.
    pub slots: Vec<SlotView>,
}

async fn view(surface: &Surface) -> Result<FleetView, Fault> {
    let now = surface.world.clock.now();
    let sheets = members::all(&surface.stores).await?;
    let mut lent = vec![];
    for account in surface.accounts.keys() {
        let (slots, _) = slots::read(&surface.stores, account).await?;
        let of = |lent: Lent| SlotView {
            account: account.clone(),
            worker: lent.worker.to_string(),
            since: lent.since,
            until: lent.until,
        };
        lent.extend(slots.lent.into_iter().filter(|lent| lent.until > now).map(of));
    }
    let members: Vec<MemberView> = sheets
        .into_iter()
        .map(|sheet| MemberView { alive: sheet.is_alive(now), heard_seconds_ago: now.since(sheet.at).as_secs_f64(), sheet })
        .collect();
    // A leader that was frozen may still say that it leads: the one that began last does.
    let leads = members.iter().filter(|member| member.alive && member.sheet.leads_since.is_some());
    let leader = leads.max_by_key(|member| member.sheet.leads_since);
    let deliver = members.iter().filter(|member| member.alive && member.sheet.role == FleetRole::Deliver);
    let owned = deliver.flat_map(|member| &member.sheet.partitions);
    Ok(FleetView {
        leader: leader.map(|member| member.sheet.worker.to_string()),
        leads_since: leader.and_then(|member| member.sheet.leads_since),
        lag: leader.and_then(|member| member.sheet.lag),
        partitions_owned: owned.collect::<std::collections::BTreeSet<_>>().len() as u32,
        slots: lent,
        members,
    })
}

/// Shows the fleet: who is alive, who leads, who has what
///
/// Partitions of the delivery topic, lanes, bind slots, accounts with their rates, and what waits in the queues. Lanes are shown to
/// keys that see all tenants.
#[utoipa::path(get, path = "/v1/fleet", tag = "fleet", responses((status = 200, body = FleetView), Refusals))]
pub async fn show(State(surface): Shared, Viewer(caller): Viewer) -> Answer<Json<FleetView>> {
    let mut view = view(&surface).await?;
    if caller.only_tenant().is_some() {
        // A lane names its batch, whoever's it is.
        view.members.iter_mut().for_each(|member| member.sheet.lanes.clear());
    }
    Ok(Json(view))
}
