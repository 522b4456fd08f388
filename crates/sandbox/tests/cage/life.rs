//! Start, end, and everything that must die in between.

use palisade_sandbox::RunExit;

use crate::support::{Bench, run};

#[tokio::test]
async fn a_command_runs_and_its_output_comes_back() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let (exit, text) = run(&sandbox, "echo out; echo err >&2; pwd; exit 7").await;
    assert_eq!((exit, text.as_str()), (RunExit::Code(7), "out\nerr\n/workspace\n"));
}
