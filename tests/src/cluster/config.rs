//! The configuration files of the node's programs.

use std::fs;

use anyhow::Result;

use super::image::PAUSE;
use super::{Folder, NODE, NODE_NAME, POD_CIDR, ProxyMode};

/// Writes all of them into `folder.config()`. `programs` holds the CNI plugins.
pub fn write(folder: &Folder, programs: &str, mode: ProxyMode) -> Result<()> {
    let config = folder.config();
    let cni = config.join("cni");
    fs::create_dir_all(&cni)?;
    let root = folder.path().display();

    fs::write(
        config.join("containerd.toml"),
        format!(
            r#"version = 3
root = "{root}/containerd"
state = "/run/containerd"

[grpc]
address = "/run/containerd/containerd.sock"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE}"

[plugins.'io.containerd.cri.v1.runtime']
# Without CAP_SYS_RESOURCE no process may protect itself from the OOM killer.
restrict_oom_score_adj = true
# Its profile would stay in the machine's kernel.
disable_apparmor = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{programs}"]
conf_dir = "{cni}"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
"#,
            cni = cni.display(),
        ),
    )?;
    fs::write(
        cni.join("10-bridge.conflist"),
        format!(
            r#"{{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [{{
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": true,
    "ipMasq": false,
    "hairpinMode": true,
    "ipam": {{
      "type": "host-local",
      "dataDir": "/run/cni",
      "ranges": [[{{ "subnet": "{POD_CIDR}" }}]],
      "routes": [{{ "dst": "0.0.0.0/0" }}]
    }}
  }}]
}}
"#
        ),
    )?;

    // There is no name server in the cluster, and none outside that could be reached. Without an
    // address of one, the kubelet would warn about every pod.
    let resolv = config.join("resolv.conf");
    fs::write(&resolv, "")?;
    fs::write(
        config.join("kubelet.yaml"),
        format!(
            r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
address: {NODE}
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {root}/pki/ca.crt}}
authorization: {{mode: Webhook}}
tlsCertFile: {root}/pki/kubelet.crt
tlsPrivateKeyFile: {root}/pki/kubelet.key
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
enforceNodeAllocatable: []
# The machine's disk and memory are its own business.
evictionHard:
  memory.available: "0%"
  nodefs.available: "0%"
  nodefs.inodesFree: "0%"
  imagefs.available: "0%"
imageGCHighThresholdPercent: 100
resolvConf: {resolv}
clusterDNS: [{NODE}]
podLogsDir: {root}/logs/pods
volumePluginDir: {root}/volume-plugins
readOnlyPort: 0
healthzPort: 0
maxPods: 250
serializeImagePulls: false
kubeAPIQPS: 500
kubeAPIBurst: 1000
eventRecordQPS: 0
"#,
            cgroup = folder.cgroup(),
            resolv = resolv.display(),
        ),
    )?;
    fs::write(
        config.join("proxy.yaml"),
        format!(
            r#"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: {root}/pki/proxy.kubeconfig}}
mode: {mode}
clusterCIDR: {POD_CIDR}
hostnameOverride: {NODE_NAME}
oomScoreAdj: 0
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
# These sizes are the machine's, not the namespace's.
conntrack: {{maxPerCore: 0, min: 0}}
iptables: {{minSyncPeriod: 100ms}}
nftables: {{minSyncPeriod: 100ms}}
"#
        ),
    )?;
    Ok(())
}
