//! What an injection adds to a pod, told once more without a line of the webhook.

use crate::verbatim::Json;

/// Takes away what an injection added. What is left has to be `original`, byte for byte.
///
/// # Panics
///
/// If something that was to be added is missing, or isn't where it belongs.
pub fn undone(mut injected: Json, original: &Json, pull_secret: Option<&str>) -> Json {
    let mut take = |list: &str, name: &str, place: Place| {
        let before = original.at(&["spec", list]);
        let spec = injected.get_mut("spec").expect("a spec");
        let Some(Json::List(items)) = spec.get_mut(list) else {
            panic!("{list} is no list: {spec}")
        };
        let item = match place {
            Place::First => items.remove(0),
            Place::Last => items.pop().expect("an item"),
        };
        assert!(is_called(&item, name), "{name} is not where it belongs in {list}: {item}");
        if items.is_empty() {
            // As it was: absent, null or empty.
            match before {
                Some(before) => spec.set(list, before.clone()),
                None => drop(spec.remove(list)),
            }
        }
    };
    let listed = |list: &str, name: &str| match original.at(&["spec", list]) {
        Some(Json::List(items)) => items.iter().any(|item| is_called(item, name)),
        _ => false,
    };
    take("initContainers", "sfunnel-loader", Place::First);
    let automount = original.at(&["spec", "automountServiceAccountToken"]);
    if automount != Some(&Json::leaf("false")) && !listed("volumes", "sfunnel-no-token") {
        take("volumes", "sfunnel-no-token", Place::Last);
    }
    if let Some(secret) = pull_secret.filter(|secret| !listed("imagePullSecrets", secret)) {
        take("imagePullSecrets", secret, Place::Last);
    }

    let annotations = injected.at_mut(&["metadata", "annotations"]).expect("annotations");
    const STATUS: &str = "sfunnel.io/status";
    assert_eq!(annotations.get(STATUS).and_then(Json::text).as_deref(), Some("injected"));
    match original.at(&["metadata", "annotations", STATUS]) {
        Some(before) => annotations.set(STATUS, before.clone()),
        None => drop(annotations.remove(STATUS)),
    }
    injected
}

#[derive(Clone, Copy)]
enum Place {
    First,
    Last,
}

fn is_called(item: &Json, name: &str) -> bool {
    item.get("name").and_then(Json::text).as_deref() == Some(name)
}
