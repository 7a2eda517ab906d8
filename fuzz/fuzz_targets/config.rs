//! Configurations of any bytes. Each is parsed into a valid configuration or into a list of problems.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twilio_edge_filter::config::Config;

fuzz_target!(|json: &[u8]| {
    let environment =
        |name: &str| (name == "TOKEN").then(|| "secret-of-the-environment".to_owned());
    match Config::parse(json, &environment) {
        Ok(config) => {
            assert!(!config.origins.is_empty() && !config.routes.is_empty());
            assert!(
                config.accounts.iter().all(|a| !a.keys.is_empty() || !a.shared_keys.is_empty())
            );
            assert!(!format!("{config:?}").contains("secret-of-the-environment"));
            for route in &config.routes {
                assert!(config.route(&route.path).is_some());
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            let text: String = problems.iter().map(ToString::to_string).collect();
            assert!(!text.contains("secret-of-the-environment"));
        }
    }
});
