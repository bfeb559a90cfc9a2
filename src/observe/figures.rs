//! Every figure there is, by Prometheus' conventions: the unit at the end of the name, `_total` behind what only grows.

/// What kind of figure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nothing is told to anybody"))]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// Of seconds.
    Histogram,
}

#[derive(Debug)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nothing is told to anybody"))]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

macro_rules! figures {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) static $id: Figure = Figure {
            name: concat!("tower_upload_", $name),
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        #[cfg_attr(not(any(test, feature = "metrics")), allow(dead_code, reason = "nothing is told to anybody"))]
        pub(super) static ALL: &[&Figure] = &[$(&$id),*];
    };
}

figures! {
    REQUEST: Histogram "request_duration_seconds" ["dialect", "outcome"]
        "Time from a request's head to the head of its answer, or until it was dropped";
    RECEIVED_BYTES: Counter "received_bytes_total" []
        "Bytes of bodies handed to the blob store, whether they counted in the end or not";
    COMMITTED_BYTES: Counter "committed_bytes_total" []
        "Bytes that became durable and count";
    COMMITTED_PARTS: Counter "committed_parts_total" []
        "Chunks and checkpoints of appends that became durable and count";
    CREATED: Counter "uploads_created_total" ["protocol"]
        "Uploads created";
    ENDED: Counter "uploads_ended_total" ["state"]
        "Uploads that came to their end, by the state they ended in; a finished one that is deleted later counts twice";
    OPEN_UPLOADS: Gauge "open_uploads" []
        "Unfinished uploads of all nodes, as the metadata store counts them: the same on each node";
    OPEN_BYTES: Gauge "open_uploads_reserved_bytes" []
        "Bytes that they reserve in their owners' quotas, declared ones included";
    ASSEMBLY: Histogram "assembly_duration_seconds" ["outcome"]
        "One attempt at putting a blob together, with its verification and publication";
    HOOK: Histogram "hook_duration_seconds" ["hook", "outcome"]
        "One attempt at telling a hook one event";
    DEAD_LETTERS: Counter "dead_letters_total" ["hook"]
        "Events that were told to a hook in vain until they were given up";
    WEBHOOK: Counter "webhook_answers_total" ["hook", "answer"]
        "What the receivers of webhooks answered, by the class of the status";
    STORE_CALL: Histogram "store_call_duration_seconds" ["store", "operation"]
        "Calls of the stores, failed ones included";
    STORE_ERRORS: Counter "store_errors_total" ["store", "operation", "kind"]
        "Calls of the stores that ended in an error";
    BUDGET_BYTES: Gauge "budget_used_bytes" ["place"]
        "How much of the budget for bodies in memory and in temporary files this process has in use";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_unit_and_kind() {
        for figure in ALL {
            let name = figure.name;
            let is_right = match figure.kind {
                Kind::Counter => name.ends_with("_total"),
                Kind::Gauge => !name.ends_with("_total"),
                Kind::Histogram => name.ends_with("_seconds"),
            };
            assert!(is_right, "{name}");
            assert!(!figure.help.ends_with('.'), "{name}");
        }
    }

    /// Rows are `name | kind | labels | help`.
    #[test]
    fn the_table_in_the_documentation_is_this_one() {
        let page = include_str!("../../docs/operating.md");
        let documented: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("| `tower_upload_"))
            .collect();
        let here: Vec<String> = ALL
            .iter()
            .map(|figure| {
                let kind = format!("{:?}", figure.kind).to_lowercase();
                let labels: Vec<_> = figure.labels.iter().map(|label| format!("`{label}`")).collect();
                format!(
                    "| `{}` | {kind} | {} | {} |",
                    figure.name,
                    labels.join(", "),
                    figure.help
                )
            })
            .collect();
        assert_eq!(documented, here, "docs/operating.md should have:\n{}", here.join("\n"));
    }
}
