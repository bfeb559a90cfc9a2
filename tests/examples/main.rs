//! Black-box tests of the three example servers: real processes, real sockets, the same cases for each.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::redundant_closure_for_method_calls,
    reason = "tests"
)]

mod client;
#[cfg(feature = "metrics")]
mod figures;
mod host;
mod origin;
mod protocols;
mod restart;
mod server;
mod sessions;
#[path = "../../examples/support/ticket.rs"]
#[allow(unreachable_pub, reason = "it belongs to the examples")]
mod ticket;
mod wire;

/// Runs every case against every server.
macro_rules! suite {
    ($($module:ident::$case:ident),+ $(,)?) => {
        suite!(@ axum $($module::$case)+);
        suite!(@ hyper $($module::$case)+);
        suite!(@ warp $($module::$case)+);
    };
    (@ $server:ident $($module:ident::$case:ident)+) => {
        mod $server {
            $(#[tokio::test]
            async fn $case() {
                crate::$module::$case(stringify!($server)).await;
            })+
        }
    };
}

suite![
    origin::the_documented_flow_holds_to_the_letter,
    origin::errors_are_told_in_the_documented_words,
    origin::the_documented_client_runs_unchanged,
    sessions::raw_chunks_in_parallel,
    sessions::a_damaged_chunk_is_not_stored,
    sessions::an_aborted_upload_is_gone,
    sessions::events_tell_the_progress,
    sessions::strangers_see_nothing,
    wire::a_refusal_comes_before_the_body,
    wire::a_body_shorter_than_announced_is_not_stored,
    wire::a_body_longer_than_announced_is_cut_there,
    wire::a_body_without_length_stops_at_the_limit,
    wire::a_form_without_its_final_boundary_is_not_stored,
    wire::an_early_error_closes_the_connection,
    restart::killed_in_the_middle,
    restart::a_cut_line_of_the_catalogue_is_forgotten,
    host::secrets_stay_out_of_the_output,
    host::the_demo_token_is_printed_once,
    host::the_page_and_its_files,
    host::tickets_and_ranges,
    host::only_videos_are_shown_as_videos,
    host::another_mount_and_no_tokens,
    host::bad_flags_are_told,
    protocols::tus_is_spoken,
    protocols::the_protocol_of_the_ietf_is_spoken,
    protocols::pages_of_named_origins_may_upload,
];
