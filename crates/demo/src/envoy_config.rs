//! Shipped `envoy/envoy.yaml`, changed by its structure and never by its text, so that the demo and the tests start the
//! configuration that users get. This module knows the places of values in that file; a file with moved values causes an
//! error that names the place, not a configuration that is half changed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use serde_json::{Value, json};

/// Places of values in `envoy/envoy.yaml` (JSON pointers).
mod place {
    pub(super) const ADMIN: &str = "/admin/address/socket_address";
    pub(super) const LISTENER: &str = "/static_resources/listeners/0/address/socket_address";
    pub(super) const CLUSTERS: &str = "/static_resources/clusters";
    pub(super) const CLUSTER_ADDRESS: &str =
        "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
    pub(super) const CONNECTION_MANAGER: &str =
        "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    pub(super) const FILTERS: &str = "/http_filters";
    pub(super) const FILTER: &str = "twilio_edge";
    pub(super) const ROUTES: &str = "/route_config/virtual_hosts/0/routes";

    /// Places in the filter's entry. In the one of the wasm filter the plugin has an entry of its own.
    pub(super) mod wasm {
        pub(in super::super) const PLUGIN: &str = "/config";
        pub(in super::super) const CONFIGURATION: &str = "/config/configuration/value";
        pub(in super::super) const MODULE: &str = "/config/vm_config/code/local/filename";
    }

    /// Places in the entry of the native module.
    pub(super) mod native {
        pub(in super::super) const CONFIGURATION: &str = "/filter_config/value";
        pub(in super::super) const MODULE: &str = "/dynamic_module_config/module/local/filename";
    }
}

/// Cluster of the application in the shipped configuration.
pub const BACKEND_CLUSTER: &str = "backend";
/// Cluster of the sidecar in the shipped configuration.
pub const SIDECAR_CLUSTER: &str = "twilio_edge_sidecar";

/// Reason why a configuration could not be loaded, changed or written.
#[derive(Debug)]
pub enum EnvoyConfigError {
    /// The file could not be read or written.
    File(PathBuf, std::io::Error),
    /// The text is not YAML, or the plugin configuration in it is not JSON.
    Syntax(String),
    /// The file differs in structure from the shipped one: this place has no value.
    Moved(String),
}

impl fmt::Display for EnvoyConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Syntax(error) => write!(f, "envoy configuration: {error}"),
            Self::Moved(place) => {
                write!(f, "the Envoy configuration has no {place}, unlike the shipped file")
            }
        }
    }
}

impl std::error::Error for EnvoyConfigError {}

/// An Envoy bootstrap configuration, and the filter's plugin configuration out of it.
///
/// ```
/// # use twilio_edge_demo::EnvoyConfig;
/// # let yaml = include_str!("../../../envoy/envoy.yaml");
/// let mut config = EnvoyConfig::parse(yaml)?;
/// config.set_listener("127.0.0.1:18080".parse()?)?;
/// config.plugin["on_unavailable"]["inbound"] = "reject".into();
/// assert!(config.to_json()?.contains("18080"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct EnvoyConfig {
    /// Configuration of the filter; it is put back into the bootstrap when that is written.
    pub plugin: Value,
    /// Rest of the configuration, for changes without a method of this type.
    pub bootstrap: Value,
}

impl EnvoyConfig {
    /// Reads the YAML file at `path`.
    pub fn load(path: &Path) -> Result<Self, EnvoyConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|error| EnvoyConfigError::File(path.to_owned(), error))?;
        Self::parse(&text)
    }

    /// Parses YAML (JSON is YAML) with the structure of the shipped file.
    pub fn parse(yaml: &str) -> Result<Self, EnvoyConfigError> {
        let mut bootstrap: Value =
            serde_saphyr::from_str(yaml).map_err(|e| EnvoyConfigError::Syntax(e.to_string()))?;
        let json = plugin_configuration(&mut bootstrap)?
            .as_str()
            .ok_or_else(|| EnvoyConfigError::Moved(place::wasm::CONFIGURATION.into()))?;
        let plugin = serde_json::from_str(json)
            .map_err(|e| EnvoyConfigError::Syntax(format!("plugin configuration: {e}")))?;
        Ok(Self { plugin, bootstrap })
    }

    /// Sets the address of the listener for webhooks.
    pub fn set_listener(&mut self, address: SocketAddr) -> Result<(), EnvoyConfigError> {
        *at(&mut self.bootstrap, place::LISTENER)? = socket_address(address);
        Ok(())
    }

    /// Sets the address of Envoy's admin interface.
    pub fn set_admin(&mut self, address: SocketAddr) -> Result<(), EnvoyConfigError> {
        *at(&mut self.bootstrap, place::ADMIN)? = socket_address(address);
        Ok(())
    }

    /// Sets the address of the only endpoint of `cluster` ([`BACKEND_CLUSTER`], [`SIDECAR_CLUSTER`]).
    pub fn set_cluster(
        &mut self,
        cluster: &str,
        address: SocketAddr,
    ) -> Result<(), EnvoyConfigError> {
        let found = at(&mut self.bootstrap, place::CLUSTERS)?
            .as_array_mut()
            .and_then(|all| {
                all.iter_mut().find(|one| one.get("name").is_some_and(|name| name == cluster))
            })
            .ok_or_else(|| EnvoyConfigError::Moved(format!("cluster {cluster}")))?;
        *at(found, place::CLUSTER_ADDRESS)? = json!({ "socket_address": socket_address(address) });
        Ok(())
    }

    /// Sets the path of the compiled filter: a `.wasm`, or the library if the configuration loads the native module.
    pub fn set_module(&mut self, module: &Path) -> Result<(), EnvoyConfigError> {
        let is_native = self.is_native()?;
        let place = if is_native { place::native::MODULE } else { place::wasm::MODULE };
        *at(filter(&mut self.bootstrap)?, place)? = json!(module);
        Ok(())
    }

    /// Returns the wasm plugin's entry in the filter chain: failure policy, VM, environment.
    pub fn plugin_entry(&mut self) -> Result<&mut Value, EnvoyConfigError> {
        at(filter(&mut self.bootstrap)?, place::wasm::PLUGIN)
    }

    /// Reports whether the configuration loads the native module instead of the wasm filter.
    pub fn is_native(&mut self) -> Result<bool, EnvoyConfigError> {
        Ok(filter(&mut self.bootstrap)?.pointer(place::native::CONFIGURATION).is_some())
    }

    /// Replaces the wasm filter by the native module in the file `module`, and gives its metrics the names of the wasm filter's.
    /// This is the whole difference between `envoy/envoy.yaml` and `envoy/native.yaml`.
    pub fn use_native(&mut self, module: &Path) -> Result<(), EnvoyConfigError> {
        *filter(&mut self.bootstrap)? = json!({
            "@type":
                "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {
                "module": { "local": { "filename": module } },
                "do_not_close": true,
                "metrics_namespace": "wasmcustom",
            },
            "filter_name": "twilio_edge",
            "filter_config": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": "",
            },
        });
        let bootstrap = self
            .bootstrap
            .as_object_mut()
            .ok_or_else(|| EnvoyConfigError::Moved("object".to_owned()))?;
        let flag = "envoy.reloadable_features.dynamic_modules_strip_custom_stat_prefix";
        let layer = json!({ "name": "twilio_edge", "static_layer": { flag: true } });
        bootstrap.insert("layered_runtime".to_owned(), json!({ "layers": [layer] }));
        Ok(())
    }

    /// Returns the routes, tried in order; the last one is the catch-all.
    pub fn routes(&mut self) -> Result<&mut Vec<Value>, EnvoyConfigError> {
        at(at(&mut self.bootstrap, place::CONNECTION_MANAGER)?, place::ROUTES)?
            .as_array_mut()
            .ok_or_else(|| EnvoyConfigError::Moved(place::ROUTES.into()))
    }

    /// Returns the whole configuration as JSON, which Envoy accepts like YAML.
    pub fn to_json(&self) -> Result<String, EnvoyConfigError> {
        let mut bootstrap = self.bootstrap.clone();
        *plugin_configuration(&mut bootstrap)? = Value::String(self.plugin.to_string());
        Ok(format!("{bootstrap:#}\n"))
    }

    /// Writes [`Self::to_json`] to `path`, whose name must end in `.json`, since Envoy derives the format from it.
    pub fn write(&self, path: &Path) -> Result<(), EnvoyConfigError> {
        fs::write(path, self.to_json()?)
            .map_err(|error| EnvoyConfigError::File(path.to_owned(), error))
    }
}

fn at<'a>(value: &'a mut Value, pointer: &str) -> Result<&'a mut Value, EnvoyConfigError> {
    value.pointer_mut(pointer).ok_or_else(|| EnvoyConfigError::Moved(pointer.into()))
}

/// Returns the entry of our filter.
fn filter(bootstrap: &mut Value) -> Result<&mut Value, EnvoyConfigError> {
    at(at(bootstrap, place::CONNECTION_MANAGER)?, place::FILTERS)?
        .as_array_mut()
        .and_then(|all| {
            all.iter_mut().find(|one| one.get("name").is_some_and(|name| name == place::FILTER))
        })
        .and_then(|found| found.get_mut("typed_config"))
        .ok_or_else(|| EnvoyConfigError::Moved(format!("filter {}", place::FILTER)))
}

fn plugin_configuration(bootstrap: &mut Value) -> Result<&mut Value, EnvoyConfigError> {
    let filter = filter(bootstrap)?;
    let is_native = filter.pointer(place::native::CONFIGURATION).is_some();
    at(filter, if is_native { place::native::CONFIGURATION } else { place::wasm::CONFIGURATION })
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "address": address.ip().to_string(), "port_value": address.port() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../envoy/envoy.yaml");

    fn shipped() -> EnvoyConfig {
        EnvoyConfig::parse(SHIPPED).unwrap()
    }

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    /// Every change is at the position where Envoy reads it, and no other value has changed.
    #[test]
    fn shipped_file_can_be_moved_elsewhere() {
        let mut config = shipped();
        config.set_listener(address(1)).unwrap();
        config.set_admin(address(2)).unwrap();
        config.set_cluster(BACKEND_CLUSTER, address(3)).unwrap();
        config.set_cluster(SIDECAR_CLUSTER, address(4)).unwrap();
        config.set_module(Path::new("/somewhere/filter.wasm")).unwrap();
        config.plugin["max_body_bytes"] = json!(1024);

        let again = EnvoyConfig::parse(&config.to_json().unwrap()).unwrap();
        assert_eq!(again.plugin["max_body_bytes"], 1024);
        let text = again.to_json().unwrap();
        for new in [
            "\"port_value\": 1\n",
            "\"port_value\": 2\n",
            "\"port_value\": 3\n",
            "\"port_value\": 4\n",
        ] {
            assert_eq!(text.matches(new).count(), 1, "{new}");
        }
        assert_eq!(text.matches("/somewhere/filter.wasm").count(), 1);
        assert_eq!(text.lines().count(), shipped().to_json().unwrap().lines().count());
    }

    #[test]
    fn shipped_file_meets_the_requirements() {
        let mut config = shipped();
        let plugin = config.plugin_entry().unwrap().clone();
        assert_eq!(plugin["allow_on_headers_stop_iteration"], true);
        assert_eq!(plugin["failure_policy"], "FAIL_RELOAD");
        assert_eq!(config.bootstrap["admin"]["address"]["socket_address"]["address"], "127.0.0.1");
        assert!(plugin["vm_config"]["environment_variables"]["key_values"].is_null());
    }

    /// A user of the wasm filter replaces one entry, and sets one flag for the names of the metrics.
    #[test]
    fn native_file_differs_from_the_shipped_one_in_the_filter_alone() {
        let mut native = EnvoyConfig::parse(include_str!("../../../envoy/native.yaml")).unwrap();
        assert!(native.is_native().unwrap());
        let mut replaced = shipped();
        assert!(!replaced.is_native().unwrap());
        replaced.use_native(Path::new("target/native/libtwilio_edge_native.so")).unwrap();
        assert_eq!(native.to_json().unwrap(), replaced.to_json().unwrap());
        native.set_module(Path::new("/somewhere/module.so")).unwrap();
        assert_eq!(native.to_json().unwrap().matches("/somewhere/module.so").count(), 1);
    }

    /// The two tables of paths must not diverge: a webhook path that Envoy routes and the filter does not know would reach
    /// the backend unverified.
    #[test]
    fn every_path_to_the_backend_is_guarded() {
        let mut config = shipped();
        let routed: Vec<Value> = config
            .routes()
            .unwrap()
            .iter()
            .filter(|route| route["route"]["cluster"] == BACKEND_CLUSTER)
            .map(|route| route["match"]["path"].clone())
            .collect();
        let proven: Vec<Value> = config.plugin["routes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|route| route["path"].clone())
            .collect();
        assert_eq!(routed, proven);
    }

    #[test]
    fn missing_entry_is_named() {
        let mut config = shipped();
        let error = config.set_cluster("unknown", address(1)).unwrap_err();
        assert!(error.to_string().contains("cluster unknown"), "{error}");
        let error = EnvoyConfig::parse("admin: {}").unwrap_err();
        assert!(error.to_string().contains("/static_resources/listeners/0"), "{error}");
        assert!(EnvoyConfig::parse("a: [").is_err());
    }
}
