//! The command line. Every flag has an environment variable, `SFUNNEL_` and its name.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;

use certs::{Files, Name, Policy, PolicyError};
use clap::builder::{RangedU64ValueParser, Resettable};
use clap::{CommandFactory, FromArgMatches, Parser};
use humantime::{Duration, format_duration};
use tracing::info;
use tracing::level_filters::LevelFilter;

use crate::admission::settings::{Settings, SettingsError};
use crate::certificates::source::{Managed, Source};
use crate::log::Format;
use crate::names::{label, subdomain};
use crate::server::{Limits, Options};

/// Admission webhook that adds the init container sfunnel-loader to annotated pods, and checks the
/// annotations of workloads.
#[derive(Clone, Debug, Parser)]
#[command(name = "sfunnel-webhook", version)]
pub struct Args {
    #[command(flatten)]
    pub settings: Settings,
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub serve: ServeArgs,

    /// The form of log lines.
    #[arg(long, env = "SFUNNEL_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: Format,

    /// The least important lines that are logged: error, warn, info, debug or trace.
    #[arg(long, env = "SFUNNEL_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: LevelFilter,
}

/// Where the certificate comes from. Without --tls-cert and --self-signed, replicas manage it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// Namespace of --service and --ca-secret. [default: that of the service account]
    #[arg(long, env = "SFUNNEL_NAMESPACE", value_name = "NAME", value_parser = label, conflicts_with_all = OTHER_SOURCES)]
    namespace: Option<String>,

    /// Service by which API servers call. The certificate is good for it.
    #[arg(long, env = "SFUNNEL_SERVICE", value_name = "NAME", value_parser = label, conflicts_with_all = OTHER_SOURCES, default_value = "sfunnel-webhook")]
    service: String,

    /// Secret with the CA that replicas share. It is created if it isn't there.
    #[arg(long, env = "SFUNNEL_CA_SECRET", value_name = "NAME", value_parser = subdomain, conflicts_with_all = OTHER_SOURCES, default_value = "sfunnel-webhook-ca")]
    ca_secret: String,

    /// MutatingWebhookConfiguration in which the CA is published, and ValidatingWebhookConfiguration of
    /// the same name.
    #[arg(long, env = "SFUNNEL_WEBHOOK_CONFIGURATION", value_name = "NAME", value_parser = subdomain, conflicts_with_all = OTHER_SOURCES, default_value = "sfunnel-webhook")]
    webhook_configuration: String,

    /// Lifetime of a CA; the next one is made after two thirds of it.
    #[arg(long, env = "SFUNNEL_CA_LIFETIME", value_name = "DURATION", conflicts_with_all = OTHER_SOURCES, default_value = "365d", value_parser = duration::<60, MAX_LIFETIME>)]
    ca_lifetime: Duration,

    /// Lifetime of a certificate; it is renewed after two thirds of it.
    #[arg(long, env = "SFUNNEL_CERTIFICATE_LIFETIME", value_name = "DURATION", conflicts_with_all = OTHER_SOURCES, default_value = "7d", value_parser = duration::<15, MAX_LIFETIME>)]
    certificate_lifetime: Duration,

    /// How long the next CA is published before it signs, less than a sixth of --ca-lifetime. API
    /// servers have to hear of it meanwhile.
    #[arg(long, env = "SFUNNEL_CA_OVERLAP", value_name = "DURATION", conflicts_with_all = OTHER_SOURCES, default_value = "1h", value_parser = duration::<1, MAX_LIFETIME>)]
    ca_overlap: Duration,

    /// PEM file with the server's certificate, and those of its issuers after it, instead of a CA that
    /// replicas share. It is read again when it changes.
    #[arg(
        long,
        env = "SFUNNEL_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key",
        conflicts_with = "self_signed"
    )]
    tls_cert: Option<PathBuf>,

    /// PEM file with the key of --tls-cert.
    #[arg(long, env = "SFUNNEL_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Use a certificate of a CA that this process makes at start and shares with nobody.
    #[arg(long, env = "SFUNNEL_SELF_SIGNED")]
    self_signed: bool,

    /// DNS name or IP address that the self-signed certificate is good for. Repeat it, or separate
    /// names by commas.
    #[arg(long, env = "SFUNNEL_SELF_SIGNED_NAME", value_name = "NAME", value_delimiter = ',', value_parser = name, requires = "self_signed", conflicts_with = "tls_cert", default_values = DEFAULT_NAMES)]
    self_signed_name: Vec<Name>,

    /// File to which the CA certificate of --self-signed is written, for clients to trust.
    #[arg(
        long,
        env = "SFUNNEL_CA_FILE",
        value_name = "FILE",
        requires = "self_signed",
        conflicts_with = "tls_cert"
    )]
    ca_file: Option<PathBuf>,
}

/// Flags by which replicas manage no certificate.
const OTHER_SOURCES: [&str; 2] = ["self_signed", "tls_cert"];

/// What a self-signed certificate is good for by default.
const DEFAULT_NAMES: [&str; 3] = ["sfunnel-webhook.sfunnel-system.svc", "localhost", "127.0.0.1"];

/// Ten years, in seconds.
const MAX_LIFETIME: u64 = 315_360_000;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Server")]
pub struct ServeArgs {
    /// Address of the TLS port, where POST /mutate and /validate are answered. Port 0 picks a free one.
    #[arg(long, env = "SFUNNEL_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,

    /// Address of the plain port, where /healthz, /readyz and /metrics are answered. Port 0 picks a free
    /// one.
    #[arg(
        long,
        env = "SFUNNEL_HEALTH_LISTEN",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8080"
    )]
    health_listen: SocketAddr,

    /// Bytes of a request's body, at the most.
    #[arg(long, env = "SFUNNEL_MAX_BODY_BYTES", value_name = "BYTES", default_value_t = 4 << 20, value_parser = in_range(64 << 10, 64 << 20))]
    max_body_bytes: u64,

    /// Reviews of more than 16 KiB, or with more than 512 bytes of rulesets, that are read and decided at
    /// the same time, at the most, and half as many for one client address. More wait up to 1 s, and are
    /// then answered with 503. Each may take --max-body-bytes and what its rulesets need to be compiled.
    #[arg(long, env = "SFUNNEL_MAX_CONCURRENT_REVIEWS", value_name = "COUNT", default_value_t = 16, value_parser = in_range(1, 512))]
    max_concurrent_reviews: u64,

    /// Connections to the TLS port, at the most, and half as many from one client address.
    #[arg(long, env = "SFUNNEL_MAX_CONNECTIONS", value_name = "COUNT", default_value_t = 4096, value_parser = in_range(1, 1 << 14))]
    max_connections: u64,

    /// Time limit of a TLS handshake.
    #[arg(long, env = "SFUNNEL_HANDSHAKE_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = duration::<1, 300>)]
    handshake_timeout: Duration,

    /// Time limit of a connection's first request header, from the TLS handshake on. Later ones have 2 min
    /// from the answer before.
    #[arg(long, env = "SFUNNEL_HEADER_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = duration::<1, 300>)]
    header_timeout: Duration,

    /// Time limit of a request's body. It should be less than the timeoutSeconds of the webhook
    /// configuration.
    #[arg(long, env = "SFUNNEL_BODY_TIMEOUT", value_name = "DURATION", default_value = "4s", value_parser = duration::<1, 300>)]
    body_timeout: Duration,

    /// From SIGTERM, or from the last connection that came after it, until no more connections are
    /// accepted. /readyz fails meanwhile.
    #[arg(long, env = "SFUNNEL_DRAIN_DELAY", value_name = "DURATION", default_value = "5s", value_parser = duration::<0, 300>)]
    drain_delay: Duration,

    /// Time limit, after --drain-delay, of requests in flight. If connections still come, they are
    /// accepted for half of it. Together with --drain-delay it should be less than the pod's
    /// terminationGracePeriodSeconds.
    #[arg(long, env = "SFUNNEL_SHUTDOWN_TIMEOUT", value_name = "DURATION", default_value = "20s", value_parser = duration::<0, 300>)]
    shutdown_timeout: Duration,
}

/// Flags that contradict each other in a way that clap doesn't know.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// Lifetimes that contradict each other.
    #[error("{0} (--ca-lifetime, --certificate-lifetime, --ca-overlap)")]
    Policy(#[from] PolicyError),
    /// Both ports are one.
    #[error("--listen and --health-listen are both {0}; give them different ports")]
    SamePort(SocketAddr),
    /// The loader's settings contradict each other.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// A consistent command line.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the certificate comes from.
    pub tls: Source,
    /// What is injected.
    pub settings: Settings,
    /// Addresses and limits of the server.
    pub options: Options,
}

impl Args {
    /// Reads the command line and the environment. Ends the process when they can't be read, or help
    /// is wanted.
    ///
    /// A variable that is set to nothing counts as not set, as it does for the loader: manifests leave
    /// variables empty.
    pub fn read() -> Self {
        let empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
        let command = Self::command().mut_args(|arg| match arg.get_env() {
            Some(name) if empty(name) => arg.env(Resettable::Reset),
            _ => arg,
        });
        Self::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
    }

    /// Checks what no flag shows by itself.
    ///
    /// # Errors
    ///
    /// The flags that contradict each other.
    pub fn config(self) -> Result<Config, ArgsError> {
        self.settings.check()?;
        let Self { settings, tls, serve, .. } = self;
        if serve.listen == serve.health_listen && serve.listen.port() != 0 {
            return Err(ArgsError::SamePort(serve.listen));
        }
        Ok(Config { tls: tls.source()?, settings, options: serve.options() })
    }
}

impl Config {
    /// Logs what is configured, in the words of the flags.
    pub fn log(&self, format: Format, level: LevelFilter) {
        let Self { tls, settings, options } = self;
        info!(
            version = env!("CARGO_PKG_VERSION"),
            loader_image = settings.loader_image.as_str(),
            loader_pull_policy = settings.loader_pull_policy.as_str(),
            loader_pull_secret = settings.loader_pull_secret,
            loader_cpu_request = %settings.loader_cpu_request,
            loader_cpu_limit = %settings.loader_cpu_limit,
            loader_memory_request = %settings.loader_memory_request,
            loader_memory_limit = %settings.loader_memory_limit,
            loader_privileged = settings.loader_privileged,
            deny_runtime_class = settings.deny_runtime_class.join(","),
            tls = %tls,
            listen = %options.listen,
            health_listen = %options.health_listen,
            max_body_bytes = options.limits.max_body,
            max_concurrent_reviews = options.limits.max_reviews,
            max_connections = options.max_connections,
            handshake_timeout = %format_duration(options.handshake_timeout),
            header_timeout = %format_duration(options.header_timeout),
            body_timeout = %format_duration(options.limits.body_timeout),
            drain_delay = %format_duration(options.drain_delay),
            shutdown_timeout = %format_duration(options.shutdown_timeout),
            log_format = format.as_str(),
            log_level = %level,
            "starting"
        );
    }
}

impl TlsArgs {
    fn source(self) -> Result<Source, PolicyError> {
        if let (Some(certificate), Some(key)) = (self.tls_cert, self.tls_key) {
            return Ok(Source::Files(Files { certificate, key }));
        }
        if self.self_signed {
            return Ok(Source::SelfSigned { names: self.self_signed_name, ca_file: self.ca_file });
        }
        let lifetimes = [self.ca_lifetime, self.certificate_lifetime, self.ca_overlap];
        let [ca, certificate, overlap] =
            lifetimes.map(|lifetime| time::Duration::seconds(lifetime.as_secs() as i64));
        Ok(Source::Managed(Managed {
            namespace: self.namespace,
            service: self.service,
            secret: self.ca_secret,
            configuration: self.webhook_configuration,
            policy: Policy::new(ca, certificate, overlap)?,
        }))
    }
}

impl ServeArgs {
    fn options(self) -> Options {
        Options {
            listen: self.listen,
            health_listen: self.health_listen,
            max_connections: self.max_connections as usize,
            handshake_timeout: *self.handshake_timeout,
            header_timeout: *self.header_timeout,
            drain_delay: *self.drain_delay,
            shutdown_timeout: *self.shutdown_timeout,
            limits: Limits {
                max_body: self.max_body_bytes as usize,
                body_timeout: *self.body_timeout,
                max_reviews: self.max_concurrent_reviews as usize,
            },
        }
    }
}

fn name(text: &str) -> Result<Name, String> {
    Name::try_from(text.to_owned()).map_err(|_| "neither a DNS name nor an IP address".to_owned())
}

/// Reads a duration from MIN to MAX seconds.
fn duration<const MIN: u64, const MAX: u64>(text: &str) -> Result<Duration, String> {
    let duration: Duration = text.parse().map_err(|error| format!("{error}"))?;
    let [min, max] = [MIN, MAX].map(std::time::Duration::from_secs);
    match (min..=max).contains(&*duration) {
        true => Ok(duration),
        false => Err(format!("not from {} to {}", Duration::from(min), Duration::from(max))),
    }
}

fn in_range(min: u64, max: u64) -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(min..=max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[&str]) -> Result<Config, String> {
        let flags = ["sfunnel-webhook", "--loader-image", "loader:1"].iter().chain(flags);
        let args = Args::try_parse_from(flags).map_err(|error| error.to_string())?;
        args.config().map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_variable() {
        for arg in Args::command().get_arguments() {
            let flag = arg.get_long().unwrap();
            let variable = format!("SFUNNEL_{}", flag.replace('-', "_").to_uppercase());
            assert_eq!(arg.get_env().unwrap(), variable.as_str(), "--{flag}");
        }
    }

    #[test]
    fn self_signed_has_default_names() {
        let Source::SelfSigned { names, ca_file } = config(&["--self-signed"]).unwrap().tls else {
            panic!("not self-signed")
        };
        let names: Vec<_> = names.iter().map(|name| name.to_str()).collect();
        assert_eq!(names, DEFAULT_NAMES);
        assert_eq!(ca_file, None);
    }

    #[test]
    fn without_a_certificate_replicas_share_a_ca() {
        let Source::Managed(managed) = config(&[]).unwrap().tls else { panic!("not managed") };
        assert_eq!(managed.namespace, None);
        assert_eq!(managed.service, "sfunnel-webhook");
        assert_eq!(managed.secret, "sfunnel-webhook-ca");
        assert_eq!(managed.configuration, "sfunnel-webhook");
        let policy = managed.policy;
        assert_eq!(policy.ca_lifetime(), time::Duration::days(365));
        assert_eq!(policy.certificate_lifetime(), time::Duration::days(7));
        assert_eq!(policy.ca_overlap(), time::Duration::hours(1));

        let shortest = ["--ca-lifetime=60s", "--certificate-lifetime=15s", "--ca-overlap=5s"];
        let names =
            ["--namespace=n", "--service=s", "--ca-secret=c.1", "--webhook-configuration=w"];
        let flags: Vec<_> = shortest.into_iter().chain(names).collect();
        let Source::Managed(managed) = config(&flags).unwrap().tls else { panic!("not managed") };
        assert_eq!(managed.namespace.as_deref(), Some("n"));
        assert_eq!([managed.service, managed.secret, managed.configuration], ["s", "c.1", "w"]);
        assert_eq!(managed.policy.ca_overlap(), time::Duration::seconds(5));
    }

    #[test]
    fn contradictions_are_refused() {
        let files = ["--tls-cert", "a", "--tls-key", "b"];
        let check = |flags: &[&str], named: [&str; 2]| {
            let error = config(flags).unwrap_err();
            let (problem, _) = error.split_once("\n\n").unwrap_or((&error, ""));
            for name in named {
                assert!(problem.contains(name), "{flags:?}: {error}");
            }
        };
        check(&files[..2], ["not provided", "--tls-key"]);
        check(&files[2..], ["not provided", "--tls-cert"]);
        check(&[&files[..], &["--self-signed"]].concat(), ["--self-signed", "--tls-cert"]);
        for flag in ["--ca-file", "--self-signed-name"] {
            check(&[flag, "c"], ["not provided", "--self-signed"]);
            check(&[&files[..], &[flag, "c"]].concat(), [flag, "--tls-cert"]);
        }
        for (flag, value) in [
            ("--namespace", "c"),
            ("--service", "c"),
            ("--ca-secret", "c"),
            ("--webhook-configuration", "c"),
            ("--ca-lifetime", "60s"),
            ("--certificate-lifetime", "60s"),
            ("--ca-overlap", "60s"),
        ] {
            check(&[&files[..], &[flag, value]].concat(), [flag, "--tls-cert"]);
            check(&["--self-signed", flag, value], [flag, "--self-signed"]);
        }
        let lifetimes = "(--ca-lifetime, --certificate-lifetime, --ca-overlap)";
        check(
            &["--ca-lifetime", "6h", "--certificate-lifetime", "1m"],
            ["the overlap of CAs has to be shorter than a sixth of a CA's life", lifetimes],
        );
        check(
            &["--certificate-lifetime", "365d"],
            ["a certificate may live half as long as a CA at the most", lifetimes],
        );
        check(
            &["--self-signed", "--listen", "[::1]:1", "--health-listen", "[::1]:1"],
            ["--listen and --health-listen are both [::1]:1", "give them different ports"],
        );
    }

    #[test]
    fn bad_values_are_refused_by_the_flags_name() {
        for (flag, value) in [
            ("--max-body-bytes", "1"),
            ("--handshake-timeout", "0s"),
            ("--handshake-timeout", "10"),
            ("--drain-delay", "301s"),
            ("--max-connections", "0"),
            ("--max-concurrent-reviews", "0"),
            ("--self-signed-name", "not a name"),
            ("--listen", "8443"),
            ("--namespace", "a.b"),
            ("--service", "a-"),
            ("--ca-secret", "a..b"),
            ("--webhook-configuration", "A"),
            ("--ca-lifetime", "59s"),
            ("--certificate-lifetime", "14s"),
            ("--ca-overlap", "0s"),
        ] {
            let error = config(&[flag, value]).unwrap_err();
            assert!(error.contains(flag), "{error}");
        }
    }
}
