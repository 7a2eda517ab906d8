//! The filter against Twilio's own SDKs, on webhooks nobody has written down.

use std::process::Command;

use crate::program::{repository, run};

/// Each makes other webhooks than the stored ones.
const SEEDS: [u32; 3] = [1, 2, 3];
const COUNT: u32 = 1000;

#[test]
fn the_filter_agrees_with_twilios_sdks_on_new_webhooks() {
    let root = repository();
    let python = root.join(".venv/bin/python");
    let node_modules = root.join("wasm-tests/signers");
    let installed = python.exists() && node_modules.join("node_modules/twilio").exists();
    assert!(installed, "Twilio's SDKs are not installed: run `make setup-test`");
    for seed in SEEDS {
        let made = Command::new(&python)
            .arg(root.join("sidecar/tests/cli/oracle/generate.py"))
            .args(["--seed", &seed.to_string(), "--count", &COUNT.to_string(), "--node-modules"])
            .arg(&node_modules)
            .output()
            .unwrap();
        let problem = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "run `make setup-test`; the generator says: {problem}");
        let ran = run(&["vectors", "-"], &[], std::str::from_utf8(&made.stdout).unwrap());
        let report = ran.json();
        assert_eq!(report["disagreements"], serde_json::json!([]), "seed {seed}");
        assert!(report["total"].as_u64().unwrap() > u64::from(COUNT) / 2, "seed {seed}: {problem}");
    }
}
