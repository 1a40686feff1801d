//! Rendered manifests, and what all of them must hold to.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use clap::{ArgAction, CommandFactory as _, Parser as _};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, PodSpec, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tests::netns::Checked as _;
use webhook::args::{Args, Config};

/// The name of nearly everything.
pub const NAME: &str = "sfunnel-webhook";
/// The kinds of the two webhook configurations.
pub const MUTATING: &str = "MutatingWebhookConfiguration";
/// See [`MUTATING`].
pub const VALIDATING: &str = "ValidatingWebhookConfiguration";
/// The namespace of the installation.
pub const NAMESPACE: &str = "sfunnel-system";

/// The folder with all manifests.
pub fn deploy() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy")).to_owned()
}

fn kubectl() -> &'static Path {
    static KUBECTL: OnceLock<PathBuf> = OnceLock::new();
    KUBECTL.get_or_init(|| match std::env::var_os("KUBECTL") {
        Some(path) => path.into(),
        None => {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/programs.sh");
            let folder = Command::new(script).checked().unwrap_or_else(|error| panic!("{error:#}"));
            Path::new(folder.trim_end()).join("kubectl")
        }
    })
}

/// Objects, in the order in which `kubectl apply` creates and `kubectl delete` deletes them.
pub struct Rendered(Vec<Value>);

impl Rendered {
    /// What a folder under `deploy/` becomes.
    #[track_caller]
    pub fn folder(folder: &str) -> Self {
        Self::parse(&Self::text(folder))
    }

    /// The same as text.
    #[track_caller]
    pub fn text(folder: &str) -> String {
        let mut command = Command::new(kubectl());
        command.arg("kustomize").arg(deploy().join(folder));
        command.checked().unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Objects from YAML.
    #[track_caller]
    pub fn parse(yaml: &str) -> Self {
        Self(serde_saphyr::from_multiple(yaml).expect("YAML of objects"))
    }

    /// All of them.
    pub fn objects(&self) -> &[Value] {
        &self.0
    }

    /// Their kinds.
    pub fn kinds(&self) -> Vec<&str> {
        self.0.iter().map(|object| object["kind"].as_str().expect("a kind")).collect()
    }

    /// The object of that kind and name.
    #[track_caller]
    pub fn get<T: DeserializeOwned>(&self, kind: &str, name: &str) -> T {
        let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        let object = self.0.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}"));
        serde_json::from_value(object.clone())
            .unwrap_or_else(|error| panic!("{kind} {name}: {error}"))
    }

    /// The entries of a webhook configuration. Those of a validating one have the same fields, but for
    /// one that they lack.
    #[track_caller]
    pub fn entries(&self, kind: &str) -> Vec<MutatingWebhook> {
        let configuration: Value = self.get(kind, NAME);
        serde_json::from_value(configuration["webhooks"].clone()).expect("entries")
    }

    /// The pods of a Deployment.
    #[track_caller]
    pub fn pods(&self, deployment: &str) -> PodSpec {
        let deployment: Deployment = self.get("Deployment", deployment);
        deployment.spec.unwrap().template.spec.unwrap()
    }

    /// The webhook's command line, as the environment in its container gives it.
    #[track_caller]
    pub fn config(&self) -> Config {
        let container = only_container(&self.pods(NAME));
        assert_eq!(container.command, None);
        assert_eq!(container.args, None, "patches can't merge flags");
        let flags = container.env.unwrap_or_default().into_iter().map(|variable| {
            let value = variable.value.unwrap_or_else(|| {
                let source = variable.value_from.expect("a value").field_ref.expect("a fieldRef");
                assert_eq!(source.field_path, "metadata.namespace");
                NAMESPACE.to_owned()
            });
            flag(&variable.name, &value)
        });
        let args = Args::try_parse_from([NAME.to_owned()].into_iter().chain(flags));
        args.unwrap_or_else(|error| panic!("{error}")).config().expect("flags that fit together")
    }

    /// Checks that the API server's call ends where the webhook listens, and that probes, Prometheus and
    /// network policy mean the same ports.
    #[track_caller]
    pub fn assert_ports_agree(&self) {
        let options = self.config().options;
        let container = only_container(&self.pods(NAME));
        let ports = container.ports.unwrap();
        let number = |name: &str| {
            let port = ports.iter().find(|port| port.name.as_deref() == Some(name));
            port.unwrap_or_else(|| panic!("no port {name}")).container_port
        };
        assert_eq!(ports.len(), 2);
        assert_eq!(number("https"), i32::from(options.listen.port()));
        assert_eq!(number("health"), i32::from(options.health_listen.port()));
        assert!(options.listen.ip().is_unspecified());
        assert!(options.health_listen.ip().is_unspecified());

        let probes = [
            (container.startup_probe, "/healthz"),
            (container.liveness_probe, "/healthz"),
            (container.readiness_probe, "/readyz"),
        ];
        for (probe, path) in probes {
            let get = probe.unwrap().http_get.unwrap();
            assert_eq!(get.path.as_deref(), Some(path));
            assert_eq!(get.port, IntOrString::String("health".to_owned()));
        }
        let deployment: Value = self.get("Deployment", NAME);
        assert_eq!(
            deployment["spec"]["template"]["metadata"]["annotations"],
            json!({
                "prometheus.io/scrape": "true",
                "prometheus.io/port": number("health").to_string(),
                "prometheus.io/path": "/metrics",
            })
        );

        for entry in [MUTATING, VALIDATING].into_iter().flat_map(|kind| self.entries(kind)) {
            let called = entry.client_config;
            let service = called.service.expect("a Service");
            assert_eq!((&*service.name, &*service.namespace), (NAME, NAMESPACE));
            assert_eq!(service.port, Some(443));
            assert_eq!(called.ca_bundle, None, "a re-applied manifest would take the CA away");
        }
        let service: Service = self.get("Service", NAME);
        let port = only(service.spec.unwrap().ports.unwrap());
        assert_eq!(port.port, 443);
        assert_eq!(port.target_port, Some(IntOrString::String("https".to_owned())));
    }

    /// Checks that the webhook's pods pass the level `restricted` of Pod Security, and more.
    #[track_caller]
    pub fn assert_hardened(&self) {
        let pods = self.pods(NAME);
        let context = pods.security_context.clone().unwrap();
        assert_eq!(context.run_as_non_root, Some(true));
        assert_eq!((context.run_as_user, context.run_as_group), (Some(65532), Some(65532)));
        assert_eq!(context.seccomp_profile.unwrap().type_, "RuntimeDefault");
        assert_eq!([pods.host_network, pods.host_pid, pods.host_ipc], [None; 3]);
        assert_eq!(pods.init_containers, None);

        let container = only_container(&pods);
        let context = container.security_context.unwrap();
        assert_eq!(context.allow_privilege_escalation, Some(false));
        assert_eq!(context.privileged, Some(false));
        assert_eq!(context.read_only_root_filesystem, Some(true));
        let capabilities = context.capabilities.unwrap();
        assert_eq!((capabilities.add, capabilities.drop), (None, Some(vec!["ALL".to_owned()])));
        assert_eq!((context.run_as_user, context.run_as_non_root), (None, None));
        let resources = container.resources.unwrap();
        assert!(resources.limits.unwrap().contains_key("memory"));
        let requests = resources.requests.unwrap();
        assert!(requests.contains_key("memory") && requests.contains_key("cpu"));
    }
}

/// The flag whose variable this is.
fn flag(variable: &str, value: &str) -> String {
    let command = Args::command();
    let is_it = |arg: &&clap::Arg| arg.get_env().is_some_and(|name| name == variable);
    let arg = command.get_arguments().find(is_it);
    let arg = arg.unwrap_or_else(|| panic!("the webhook reads no {variable}"));
    let name = arg.get_long().expect("flags are long");
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, "true") => format!("--{name}"),
        (ArgAction::SetTrue, _) => panic!("{variable}={value} is for a flag without a value"),
        _ => format!("--{name}={value}"),
    }
}

/// The only item of a list.
#[track_caller]
pub fn only<T: std::fmt::Debug>(list: Vec<T>) -> T {
    let [item] = <[T; 1]>::try_from(list).expect("one item");
    item
}

/// The only container.
#[track_caller]
pub fn only_container(pods: &PodSpec) -> Container {
    only(pods.containers.clone())
}
