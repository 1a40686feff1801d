//! Pods in every shape that the API allows, as [`Choices`] make them: fields of the kinds that real pods
//! have, lists that are absent, null or empty, and fields that no version of the API has.

use crate::choices::Choices;
use crate::verbatim::Json;

/// Rulesets that are accepted.
pub const RULESETS: [&str; 6] = [
    "ip tcp dport 80 sport 540 actions unfunnel tcp",
    "ip daddr 192.0.2.1 tcp dport { 443, 8000-8999 } actions funnel tcp dport 80 sport 540",
    "# Both.\nip6 saddr 2001:db8::/32 udp actions drop\r\nip saddr != 10.0.0.0/8 udp actions drop\n",
    "udp dport 2055 actions accept; tcp actions drop",
    "tcp dport 80 sport 11-19 actions unfunnel tcp dport 8080",
    // The second rule can't match.
    "tcp dport 1-65535 actions accept\ntcp dport 179 actions drop # \u{e9}",
];

/// A pod that is to be injected. Neither its containers nor its volumes are called like ours, but it may
/// have the pull secret `regcred`.
pub fn pod(choices: &mut Choices<'_>) -> Json {
    let mut pod = Object::default();
    pod.put("kind", Json::string("Pod"));
    pod.put("apiVersion", Json::string("v1"));
    pod.put("metadata", metadata(choices));
    pod.put("spec", spec(choices));
    pod.maybe(choices, "status", |_| Json::Object(Vec::new()));
    pod.end(choices)
}

/// The metadata of a pod that is to be injected.
pub fn metadata(choices: &mut Choices<'_>) -> Json {
    let mut metadata = Object::default();
    let name = ["name", "generateName"];
    metadata.put(choices.pick(&name), Json::string("web-"));
    metadata.put("annotations", annotations(choices));
    metadata.maybe(choices, "namespace", |_| Json::string("shop"));
    metadata.maybe(choices, "labels", labels);
    metadata.maybe(choices, "creationTimestamp", |_| Json::NULL);
    metadata.maybe(choices, "finalizers", |choices| list(choices, word));
    metadata.maybe(choices, "ownerReferences", |choices| {
        list(choices, |choices| {
            let mut owner = Object::default();
            owner.put("apiVersion", Json::string("apps/v1"));
            owner.put("kind", Json::string(choices.pick(&["ReplicaSet", "DaemonSet", "Job"])));
            owner.put("name", Json::string("web-6f9d"));
            owner.put("uid", Json::string("705ab4f5-6393-11e8-b7cc-42010a800002"));
            owner.maybe(choices, "controller", boolean);
            owner.maybe(choices, "blockOwnerDeletion", boolean);
            owner.end(choices)
        })
    });
    metadata.end(choices)
}

fn annotations(choices: &mut Choices<'_>) -> Json {
    let mut all = Object::default();
    let ours: &[&str] = choices.pick(&[
        ["sfunnel.io/ruleset"].as_slice(),
        &["sfunnel.io/egress-ruleset"],
        &["sfunnel.io/ruleset", "sfunnel.io/egress-ruleset"],
    ]);
    for name in ours {
        all.put(name, Json::string(choices.pick(&RULESETS)));
    }
    all.maybe(choices, "sfunnel.io/interfaces", |choices| {
        Json::string(choices.pick(&["eth0", "", "eth0 net1", " eth0\t\n"]))
    });
    all.maybe(choices, "sfunnel.io/inject", |_| Json::string("true"));
    all.maybe(choices, "sfunnel.io/status", |choices| {
        Json::string(choices.pick(&["injected", "", "no"]))
    });
    all.maybe(choices, "sfunnel.io/rulesets", word);
    all.maybe(choices, "example.com/~a", word);
    all.maybe(choices, "example.com/b", word);
    all.end_without_more(choices)
}

/// The spec of a pod that is to be injected.
pub fn spec(choices: &mut Choices<'_>) -> Json {
    let mut spec = Object::default();
    let containers = (0..=choices.below(3)).map(|number| container(choices, "app", number));
    spec.put("containers", containers.collect());
    spec.maybe(choices, "initContainers", |choices| {
        let number = choices.below(100);
        list(choices, |choices| container(choices, "init", number))
    });
    spec.maybe(choices, "volumes", |choices| list(choices, volume));
    spec.maybe(choices, "imagePullSecrets", |choices| {
        list(choices, |choices| named(choices, &["regcred", "other", ""]))
    });
    spec.maybe(choices, "automountServiceAccountToken", boolean);
    spec.maybe(choices, "tolerations", |choices| list(choices, toleration));
    spec.maybe(choices, "nodeSelector", labels);
    spec.maybe(choices, "hostNetwork", |_| Json::leaf("false"));
    spec.maybe(choices, "hostUsers", |_| Json::leaf("true"));
    spec.maybe(choices, "hostPID", boolean);
    spec.maybe(choices, "os", |choices| named(choices, &["linux"]));
    spec.maybe(choices, "restartPolicy", |choices| {
        Json::string(choices.pick(&["Always", "OnFailure", "Never"]))
    });
    spec.maybe(choices, "runtimeClassName", |choices| {
        Json::string(choices.pick(&["nvidia", "kata-qemu", ""]))
    });
    spec.maybe(choices, "serviceAccountName", word);
    spec.maybe(choices, "terminationGracePeriodSeconds", number);
    spec.maybe(choices, "priority", number);
    spec.maybe(choices, "securityContext", |choices| {
        let mut context = Object::default();
        context.maybe(choices, "runAsNonRoot", boolean);
        context.maybe(choices, "runAsUser", number);
        context.maybe(choices, "fsGroup", number);
        context.maybe(choices, "supplementalGroups", |choices| list(choices, number));
        context.maybe(choices, "seccompProfile", |_| {
            Json::from_iter([("type", Json::string("RuntimeDefault"))])
        });
        context.maybe(choices, "sysctls", |choices| list(choices, variable));
        context.end(choices)
    });
    spec.maybe(choices, "hostAliases", |choices| {
        list(choices, |choices| {
            Json::from_iter([("ip", word(choices)), ("hostnames", list(choices, word))])
        })
    });
    spec.maybe(choices, "affinity", |choices| {
        let terms = list(choices, |choices| {
            Json::from_iter([("topologyKey", word(choices)), ("labelSelector", Json::NULL)])
        });
        let required = ("requiredDuringSchedulingIgnoredDuringExecution", terms);
        Json::from_iter([("podAntiAffinity", Json::from_iter([required]))])
    });
    spec.end(choices)
}

fn container(choices: &mut Choices<'_>, role: &str, number_of_it: usize) -> Json {
    let mut container = Object::default();
    container.put("name", Json::string(&format!("{role}-{number_of_it}")));
    container.put("image", Json::string("registry.example/app:1"));
    container.maybe(choices, "command", |choices| list(choices, word));
    container.maybe(choices, "args", |choices| list(choices, word));
    container.maybe(choices, "ports", |choices| list(choices, port));
    container.maybe(choices, "env", |choices| list(choices, variable));
    container.maybe(choices, "envFrom", |choices| {
        list(choices, |choices| {
            let source = named(choices, &["settings"]);
            Json::from_iter([(choices.pick(&["configMapRef", "secretRef"]), source)])
        })
    });
    container.maybe(choices, "resources", resources);
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        container.maybe(choices, kind, probe);
    }
    container
        .maybe(choices, "lifecycle", |choices| Json::from_iter([("preStop", handler(choices))]));
    container.maybe(choices, "securityContext", |choices| {
        let mut context = Object::default();
        context.maybe(choices, "privileged", boolean);
        context.maybe(choices, "runAsUser", number);
        context.maybe(choices, "readOnlyRootFilesystem", boolean);
        context.maybe(choices, "capabilities", |choices| {
            Json::from_iter([("drop", list(choices, word)), ("add", list(choices, word))])
        });
        context.end(choices)
    });
    container.maybe(choices, "volumeMounts", |choices| {
        list(choices, |choices| {
            let mut mount = Object::default();
            mount.put("name", word(choices));
            mount.put("mountPath", word(choices));
            mount.maybe(choices, "readOnly", boolean);
            mount.end(choices)
        })
    });
    container.maybe(choices, "imagePullPolicy", |_| Json::string("IfNotPresent"));
    container.maybe(choices, "stdin", boolean);
    if role == "init" {
        container.maybe(choices, "restartPolicy", |_| Json::string("Always"));
    }
    container.end(choices)
}

fn port(choices: &mut Choices<'_>) -> Json {
    let mut port = Object::default();
    port.put("containerPort", number(choices));
    port.maybe(choices, "name", word);
    port.maybe(choices, "protocol", |choices| Json::string(choices.pick(&["TCP", "UDP", "SCTP"])));
    port.maybe(choices, "hostPort", number);
    port.end(choices)
}

fn variable(choices: &mut Choices<'_>) -> Json {
    let mut variable = Object::default();
    variable.put("name", word(choices));
    if choices.once_in(3) {
        let source = match choices.below(3) {
            0 => ("fieldRef", Json::from_iter([("fieldPath", Json::string("metadata.name"))])),
            1 => {
                ("secretKeyRef", Json::from_iter([("key", word(choices)), ("name", word(choices))]))
            }
            _ => ("resourceFieldRef", Json::from_iter([("resource", word(choices))])),
        };
        variable.put("valueFrom", Json::from_iter([source]));
    } else {
        variable.put("value", word(choices));
    }
    variable.end(choices)
}

fn resources(choices: &mut Choices<'_>) -> Json {
    let mut resources = Object::default();
    for kind in ["requests", "limits"] {
        resources.maybe(choices, kind, |choices| {
            let mut amounts = Object::default();
            for resource in ["cpu", "memory", "nvidia.com/gpu"] {
                amounts.maybe(choices, resource, |choices| {
                    Json::string(choices.pick(&["1", "100m", "64Mi", "1e3", "0"]))
                });
            }
            amounts.end_without_more(choices)
        });
    }
    resources.end(choices)
}

fn probe(choices: &mut Choices<'_>) -> Json {
    let Json::Object(mut fields) = handler(choices) else { unreachable!("a handler is an object") };
    let mut probe = Object::default();
    probe.maybe(choices, "periodSeconds", number);
    probe.maybe(choices, "timeoutSeconds", number);
    let Json::Object(more) = probe.end(choices) else { unreachable!("so is this") };
    fields.extend(more);
    Json::Object(fields)
}

fn handler(choices: &mut Choices<'_>) -> Json {
    let mut target = Object::default();
    let kind = choices.pick(&["httpGet", "tcpSocket", "grpc", "exec"]);
    if kind == "exec" {
        target.put("command", list(choices, word));
    } else {
        let named = kind != "grpc" && choices.once_in(2);
        target.put("port", if named { Json::string("http") } else { number(choices) });
    }
    Json::from_iter([(kind, target.end(choices))])
}

fn volume(choices: &mut Choices<'_>) -> Json {
    let mut volume = Object::default();
    volume.put("name", Json::string(choices.pick(&["data", "tmp", "kube-api-access-x7k2p"])));
    match choices.below(4) {
        0 => volume.put("emptyDir", Json::Object(Vec::new())),
        1 => volume.put("configMap", named(choices, &["settings"])),
        2 => volume.put("hostPath", Json::from_iter([("path", word(choices))])),
        _ => {
            let source = Json::from_iter([("serviceAccountToken", {
                Json::from_iter([("path", Json::string("token"))])
            })]);
            volume.put("projected", Json::from_iter([("sources", Json::from_iter([source]))]));
        }
    }
    volume.end(choices)
}

fn toleration(choices: &mut Choices<'_>) -> Json {
    let mut toleration = Object::default();
    toleration.maybe(choices, "key", |choices| {
        let virtual_node = "virtual-kubelet.io/provider";
        Json::string(choices.pick(&["node.kubernetes.io/not-ready", "", virtual_node]))
    });
    toleration.maybe(choices, "operator", |_| Json::string("Exists"));
    toleration.maybe(choices, "effect", |_| Json::string("NoExecute"));
    toleration.maybe(choices, "tolerationSeconds", number);
    toleration.end(choices)
}

/// An object that has one of these names.
fn named(choices: &mut Choices<'_>, names: &[&str]) -> Json {
    let mut object = Object::default();
    object.put("name", Json::string(choices.pick(names)));
    object.end(choices)
}

fn labels(choices: &mut Choices<'_>) -> Json {
    let mut labels = Object::default();
    for name in ["app", "type", "kubernetes.io/os"] {
        labels.maybe(choices, name, |_| Json::string("linux"));
    }
    labels.end_without_more(choices)
}

/// Null, empty or filled.
fn list(choices: &mut Choices<'_>, item: impl Fn(&mut Choices<'_>) -> Json) -> Json {
    match choices.below(6) {
        0 => Json::NULL,
        1 => Json::List(Vec::new()),
        more => (0..more / 2).map(|_| item(choices)).collect(),
    }
}

fn boolean(choices: &mut Choices<'_>) -> Json {
    Json::leaf(choices.pick(&["false", "true"]))
}

fn number(choices: &mut Choices<'_>) -> Json {
    Json::leaf(choices.pick(&["80", "8080", "0", "1", "65535", "540"]))
}

/// A string, written as other programs may write it.
fn word(choices: &mut Choices<'_>) -> Json {
    Json::leaf(choices.pick(&[
        r#""word""#,
        r#""""#,
        r#""$(POD_IP)""#,
        r#""/a~1b~0c""#,
        r#""\/escaped\u002f""#,
        r#""\u00fc\ud83c\udf4e""#,
        "\"\u{fc}\u{1f34e}\u{2028}\"",
        r#""\"\\\b\n""#,
        r#""sfunnel-loader""#,
    ]))
}

/// A value of any type, with numbers that another program might write otherwise.
pub fn anything(choices: &mut Choices<'_>, depth: usize) -> Json {
    match choices.below(if depth == 0 { 10 } else { 14 }) {
        0..3 => word(choices),
        3 => Json::NULL,
        4 => boolean(choices),
        5..10 => Json::leaf(choices.pick(&[
            "1",
            "-0",
            "1.50",
            "1E+2",
            "0.1e-7",
            "9007199254740993",
            "123456789012345678901234567890",
        ])),
        10 | 11 => {
            let len = choices.below(3);
            (0..len).map(|_| anything(choices, depth - 1)).collect()
        }
        _ => {
            let len = choices.below(3);
            let keys = ["a", "b/~c"];
            keys[..len].iter().map(|key| (key, anything(choices, depth - 1))).collect()
        }
    }
}

/// An object to be, whose fields come in an order of their own in the end.
#[derive(Default)]
struct Object(Vec<(String, Json)>);

impl Object {
    fn put(&mut self, key: &str, value: Json) {
        self.0.push((key.to_owned(), value));
    }

    /// Has a field once in four times.
    fn maybe(
        &mut self,
        choices: &mut Choices<'_>,
        key: &str,
        value: impl FnOnce(&mut Choices<'_>) -> Json,
    ) {
        if choices.once_in(4) {
            let value = value(choices);
            self.put(key, value);
        }
    }

    /// With unknown fields among the others, now and then.
    fn end(mut self, choices: &mut Choices<'_>) -> Json {
        for key in ["x-unknown", "x/~\u{fc}"] {
            if choices.once_in(8) {
                let value = anything(choices, 2);
                self.put(key, value);
            }
        }
        self.end_without_more(choices)
    }

    /// For what is a map of strings in the API, and has no fields.
    fn end_without_more(mut self, choices: &mut Choices<'_>) -> Json {
        let first = choices.below(self.0.len().max(1));
        self.0.rotate_left(first);
        self.0.into_iter().collect()
    }
}
