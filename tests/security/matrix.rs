//! Every verb by every caller on an upload in every state, against one rule.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde_json::json;
use tower_upload::{
    Authorizer, Caller,
    access::{Action, Denied, OwnerOnly, Subject},
    upload::State,
};

use super::{ANN, EVE, FORM, House, JSON, Reply, UNKNOWN, form, session};

/// What can be asked of the chunk API. Whatever names an upload does it by its id, or by video and file name.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verb {
    Status,
    Head,
    Events,
    HeadEvents,
    PutChunk,
    Assemble,
    Delete,
    FormById,
    FormByIdChunkFirst,
    Form,
    FormChunkFirst,
    AssembleByName,
    Find,
    CreateSame,
    Create,
    List,
}

impl Verb {
    const ALL: [Self; 16] = [
        Self::Status,
        Self::Head,
        Self::Events,
        Self::HeadEvents,
        Self::PutChunk,
        Self::Assemble,
        Self::Delete,
        Self::FormById,
        Self::FormByIdChunkFirst,
        Self::Form,
        Self::FormChunkFirst,
        Self::AssembleByName,
        Self::Find,
        Self::CreateSame,
        Self::Create,
        Self::List,
    ];

    /// Whether it names the upload by video and file name: only one that is live has a name.
    const fn is_by_name(self) -> bool {
        matches!(
            self,
            Self::Form | Self::FormChunkFirst | Self::AssembleByName | Self::Find | Self::CreateSame
        )
    }

    const fn is_form(self) -> bool {
        matches!(
            self,
            Self::FormById | Self::FormByIdChunkFirst | Self::Form | Self::FormChunkFirst
        )
    }

    /// The request for the upload `id`, or that for `video`.
    fn request(self, id: &str, video: &str) -> (String, Option<(&'static str, &'static str)>, String) {
        let by_id = [("uploadId", id), ("chunkIndex", "1"), ("totalChunks", "3")];
        let by_name = [
            ("videoId", video),
            ("fileName", "a.mp4"),
            ("chunkIndex", "1"),
            ("totalChunks", "3"),
        ];
        let chunk = [("chunk", "4567")];
        match self {
            Self::Status => (format!("GET /uploads/{id}/"), None, String::new()),
            Self::Head => (format!("HEAD /uploads/{id}/"), None, String::new()),
            Self::Events => (format!("GET /uploads/{id}/events"), None, String::new()),
            Self::HeadEvents => (format!("HEAD /uploads/{id}/events"), None, String::new()),
            Self::PutChunk => (format!("PUT /uploads/{id}/chunks/1"), None, "4567".to_owned()),
            Self::Assemble => (format!("POST /uploads/{id}/assemble/"), None, String::new()),
            Self::Delete => (format!("DELETE /uploads/{id}/"), None, String::new()),
            Self::FormById => (
                "POST /upload-chunk/".to_owned(),
                Some(FORM),
                form(&[&by_id[..], &chunk].concat()),
            ),
            Self::FormByIdChunkFirst => (
                "POST /upload-chunk/".to_owned(),
                Some(FORM),
                form(&[&chunk[..], &by_id].concat()),
            ),
            Self::Form => (
                "POST /upload-chunk/".to_owned(),
                Some(FORM),
                form(&[&by_name[..], &chunk].concat()),
            ),
            Self::FormChunkFirst => (
                "POST /upload-chunk/".to_owned(),
                Some(FORM),
                form(&[&chunk[..], &by_name].concat()),
            ),
            Self::AssembleByName => {
                let body = json!({"videoId": video, "fileName": "a.mp4"});
                ("POST /assemble-chunks/".to_owned(), Some(JSON), body.to_string())
            }
            Self::Find => (
                format!("GET /uploads/?videoId={video}&fileName=a.mp4"),
                None,
                String::new(),
            ),
            Self::CreateSame => ("POST /uploads/".to_owned(), Some(JSON), session(video).to_string()),
            Self::Create => ("POST /uploads/".to_owned(), Some(JSON), session("another").to_string()),
            Self::List => ("GET /uploads/".to_owned(), None, String::new()),
        }
    }

    /// What the authorizer is asked, in order. On an upload only if there is one.
    fn gates(self, state: Stage) -> Vec<Gate> {
        let upload = |action| Gate::Upload(action);
        let general = |action| Gate::General(action);
        let there = state.answers_to(self);
        match self {
            Self::Status | Self::Head | Self::Events | Self::HeadEvents | Self::Find => vec![upload(Action::Inspect)],
            Self::PutChunk => vec![upload(Action::Write)],
            Self::Assemble | Self::AssembleByName => vec![upload(Action::Assemble)],
            Self::Delete if state == Stage::Assembled => vec![upload(Action::Delete)],
            Self::Delete => vec![upload(Action::Abort)],
            Self::FormById | Self::FormByIdChunkFirst => vec![general(Action::Create), upload(Action::Write)],
            Self::Form | Self::FormChunkFirst | Self::CreateSame if there => {
                vec![general(Action::Create), upload(Action::Write)]
            }
            Self::Form | Self::FormChunkFirst | Self::CreateSame | Self::Create => vec![general(Action::Create)],
            Self::List => vec![general(Action::Inspect)],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Gate {
    General(Action),
    Upload(Action),
}

/// Where Ann's upload is in its life.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Empty,
    Partial,
    Complete,
    Assembling,
    Assembled,
    Failed,
    Aborted,
    Expired,
    Deleted,
    Forgotten,
}

impl Stage {
    const ALL: [Self; 10] = [
        Self::Empty,
        Self::Partial,
        Self::Complete,
        Self::Assembling,
        Self::Assembled,
        Self::Failed,
        Self::Aborted,
        Self::Expired,
        Self::Deleted,
        Self::Forgotten,
    ];

    const fn is_live(self) -> bool {
        matches!(
            self,
            Self::Empty | Self::Partial | Self::Complete | Self::Assembling | Self::Assembled
        )
    }

    fn answers_to(self, verb: Verb) -> bool {
        self.is_live() || !verb.is_by_name() && self != Self::Forgotten
    }

    const fn state(self) -> Option<State> {
        Some(match self {
            Self::Empty | Self::Partial | Self::Complete => State::Open,
            Self::Assembling => State::Assembling,
            Self::Assembled => State::Assembled,
            Self::Failed => State::Failed,
            Self::Aborted => State::Aborted,
            Self::Expired => State::Expired,
            Self::Deleted => State::Deleted,
            Self::Forgotten => return None,
        })
    }

    /// Brings Ann's upload there; answers its id.
    async fn reach(self, house: &House) -> String {
        let id = match self {
            Self::Empty | Self::Aborted | Self::Expired | Self::Forgotten => house.begun(None).await,
            Self::Partial => {
                let id = house.begun(None).await;
                house.put(&id, 0).await;
                id
            }
            Self::Failed => house.filled(Some("crc32c:00000000")).await,
            _ => house.filled(None).await,
        };
        match self {
            Self::Empty | Self::Partial | Self::Complete => {}
            Self::Assembling => {
                house.stuck.store(true, Ordering::SeqCst);
                assert_eq!(house.assemble(&id).await.status, 0);
            }
            Self::Assembled => assert_eq!(house.assemble(&id).await.status, 200),
            Self::Failed => assert_eq!(house.assemble(&id).await.status, 409),
            Self::Aborted => house.delete(&id).await,
            Self::Expired => house.tomorrow().await,
            Self::Deleted => {
                assert_eq!(house.assemble(&id).await.status, 200);
                house.delete(&id).await;
            }
            Self::Forgotten => {
                house.delete(&id).await;
                house.tomorrow().await;
            }
        }
        assert_eq!(house.state(&id).await, self.state(), "{self:?}");
        id
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Owner,
    Stranger,
    Nobody,
    /// The owner, whom the host forbids one action.
    Forbidden(Action),
    /// The owner, from whom the host hides uploads when this action is asked.
    Hidden(Action),
}

impl Role {
    fn all() -> Vec<Self> {
        let denied = Action::ALL
            .into_iter()
            .flat_map(|action| [Self::Forbidden(action), Self::Hidden(action)]);
        [Self::Owner, Self::Stranger, Self::Nobody]
            .into_iter()
            .chain(denied)
            .collect()
    }
}

/// [`OwnerOnly`], with one action denied to Ann, or open to all.
#[derive(Debug, Default)]
struct Rules {
    denied: Option<(Action, bool)>,
    leak: Option<Action>,
}

impl Rules {
    fn of(role: Role) -> Self {
        let denied = match role {
            Role::Forbidden(action) => Some((action, false)),
            Role::Hidden(action) => Some((action, true)),
            _ => None,
        };
        Self { denied, leak: None }
    }
}

/// The rules, once switched on: they shall not hinder what prepares the upload.
#[derive(Debug)]
struct Switched(Rules, Arc<AtomicBool>);

#[async_trait]
impl Authorizer for Switched {
    async fn authorize(&self, caller: &Caller, action: Action, subject: Subject<'_>) -> Result<(), Denied> {
        let on = self.1.load(Ordering::SeqCst);
        if on && self.0.leak == Some(action) {
            return Ok(());
        }
        OwnerOnly.authorize(caller, action, subject).await?;
        match self.0.denied {
            Some((denied, hidden)) if on && denied == action => {
                Err(if hidden { Denied::Hidden } else { Denied::Forbidden })
            }
            _ => Ok(()),
        }
    }
}

/// What must come of it: the status (0: no answer before the blob store gives one), and whether a store may change.
fn rule(verb: Verb, role: Role, stage: Stage) -> (u16, bool) {
    const REFUSED: bool = false;
    match role {
        Role::Nobody => (401, REFUSED),
        // To a stranger it is as if there were no such upload.
        Role::Stranger => owner(verb, Stage::Forgotten),
        Role::Owner => owner(verb, stage),
        Role::Forbidden(denied) | Role::Hidden(denied) => {
            let status = if matches!(role, Role::Hidden(_)) { 404 } else { 403 };
            for gate in verb.gates(stage) {
                match gate {
                    Gate::General(action) | Gate::Upload(action)
                        if action == denied && (stage.answers_to(verb) || matches!(gate, Gate::General(_))) =>
                    {
                        return (status, REFUSED);
                    }
                    _ => {}
                }
            }
            owner(verb, stage)
        }
    }
}

/// The same for the owner, to whom nothing is denied.
fn owner(verb: Verb, stage: Stage) -> (u16, bool) {
    const NOT_FOUND: (u16, bool) = (404, false);
    if !stage.answers_to(verb) {
        return match verb {
            Verb::Form | Verb::FormChunkFirst => (200, true),
            Verb::CreateSame | Verb::Create => (201, true),
            Verb::List => (200, false),
            _ => NOT_FOUND,
        };
    }
    let ended = match stage {
        Stage::Failed => Some(409),
        Stage::Aborted | Stage::Expired | Stage::Deleted => Some(410),
        _ => None,
    };
    match verb {
        Verb::Status | Verb::Head | Verb::Events | Verb::HeadEvents | Verb::Find | Verb::List | Verb::CreateSame => {
            (200, false)
        }
        Verb::Create => (201, true),
        Verb::PutChunk | Verb::FormById | Verb::FormByIdChunkFirst | Verb::Form | Verb::FormChunkFirst => ended
            .map_or((200, matches!(stage, Stage::Empty | Stage::Partial)), |status| {
                (status, false)
            }),
        Verb::Assemble | Verb::AssembleByName => match stage {
            Stage::Empty | Stage::Partial => (409, false),
            Stage::Complete => (200, true),
            Stage::Assembling => (0, false),
            _ => (ended.unwrap_or(200), false),
        },
        Verb::Delete => match stage {
            Stage::Assembling => (0, true),
            Stage::Expired => (410, false),
            _ => (204, stage.is_live()),
        },
    }
}

/// What does not depend on the id that the answer speaks of.
fn essence(reply: &Reply) -> String {
    let mut text = format!("{} {}", reply.status, reply.text);
    for (name, value) in &reply.headers {
        let _ = write!(text, "\n{name}: {value:?}");
    }
    match serde_json::from_str::<serde_json::Value>(&reply.text) {
        Ok(json) => match json["data"]["upload_id"].as_str() {
            Some(id) => text.replace(id, "ID"),
            None => text,
        },
        Err(_) => text,
    }
}

async fn ask(house: &House, verb: Verb, role: Role, id: &str, video: &str) -> Reply {
    let (ask, media, body) = verb.request(id, video);
    let who = match role {
        Role::Nobody => None,
        Role::Stranger => Some(EVE),
        _ => Some(ANN),
    };
    let headers: Vec<_> = who.into_iter().chain(media).collect();
    let reply = house.ask(&ask, &headers, body).await;
    // What was left to a task of its own is done by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    reply
}

/// What is wrong with one combination.
async fn violations(verb: Verb, role: Role, stage: Stage, rules: Rules) -> Vec<String> {
    let on = Arc::new(AtomicBool::new(false));
    let house = House::new(Switched(rules, on.clone())).await;
    let id = stage.reach(&house).await;
    on.store(true, Ordering::SeqCst);
    let before = house.holdings().await;
    let reply = ask(&house, verb, role, &id, "v1").await;
    let after = house.holdings().await;

    let mut found = Vec::new();
    let mut check = |holds: bool, what: String| {
        if !holds {
            found.push(format!("{verb:?} by {role:?} on {stage:?}: {what}"));
        }
    };
    let (status, changes) = rule(verb, role, stage);
    check(
        reply.status == status,
        format!("{} instead of {status}: {}", reply.status, reply.text),
    );
    check(
        (before != after) == changes,
        format!("changed a store: {}, expected {changes}", before != after),
    );
    let on_upload = matches!(role, Role::Hidden(denied) if verb.gates(stage).contains(&Gate::Upload(denied)));
    let unknowing = matches!(role, Role::Stranger | Role::Nobody);
    if unknowing {
        check(before.of("ann") == after.of("ann"), "changed Ann's upload".to_owned());
        check(!reply.text.contains(&id), format!("told the id: {}", reply.text));
    }
    if (unknowing && verb != Verb::Create) || (on_upload && !matches!(verb, Verb::CreateSame) && !verb.is_form()) {
        let unknown = ask(&house, verb, role, UNKNOWN, "v0").await;
        check(
            essence(&reply) == essence(&unknown),
            format!(
                "is told from an unknown one:\n{}\n{}",
                essence(&reply),
                essence(&unknown)
            ),
        );
    }
    if reply.status >= 400 {
        check(!reply.text.contains("4567"), "told bytes of the file".to_owned());
    }
    found
}

#[tokio::test(start_paused = true)]
async fn every_verb_by_every_role_in_every_state() {
    let mut found = Vec::new();
    let mut combinations = 0;
    for verb in Verb::ALL {
        for role in Role::all() {
            for stage in Stage::ALL {
                found.extend(violations(verb, role, stage, Rules::of(role)).await);
                combinations += 1;
            }
        }
    }
    println!("{combinations} combinations of verb, role and state");
    assert_eq!(combinations, 16 * 17 * 10);
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

/// The matrix sees a hole in any action that can be asked over HTTP.
#[tokio::test(start_paused = true)]
async fn an_authorizer_with_a_hole_is_seen() {
    for hole in Action::ALL.into_iter().filter(|action| *action != Action::Read) {
        let mut found = 0;
        for verb in Verb::ALL {
            for role in [Role::Stranger, Role::Nobody] {
                for stage in [Stage::Partial, Stage::Complete, Stage::Assembled] {
                    let rules = Rules {
                        denied: None,
                        leak: Some(hole),
                    };
                    found += violations(verb, role, stage, rules).await.len();
                }
            }
        }
        assert!(found > 0, "{hole:?} open to all was not seen");
    }
}
