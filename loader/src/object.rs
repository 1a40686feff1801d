//! From a compiled ruleset to maps and a program in the kernel.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::io;
use std::mem;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::sync::OnceLock;
use std::thread;

use abi::{
    Config, Counter, NODE_ENTRIES, Row, RuleEntry, SourceChunk, flag, map_name, node_entries,
    program_name,
};
use aya::maps::MapData;
use aya_obj::Object;
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY;
use aya_obj::generated::{BPF_F_RDONLY_PROG, bpf_insn};
use ruleset::Compiled;

use crate::sys::LogLevel;
use crate::{kernel, sys};

/// The tc program, made by injector-bpf/build.sh.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../injector-bpf/sfunnel.bpf.o");

/// A value of a map, as its bytes lie there.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Value<T>(pub T);

// SAFETY: the structures of `abi` are repr(C) integers without padding.
unsafe impl aya::Pod for Value<Config> {}
// SAFETY: as above.
unsafe impl aya::Pod for Value<Counter> {}
// SAFETY: as above.
unsafe impl aya::Pod for Value<u64> {}
// SAFETY: as above.
unsafe impl aya::Pod for Value<Row> {}
// SAFETY: as above.
unsafe impl aya::Pod for Value<RuleEntry> {}
// SAFETY: as above.
unsafe impl aya::Pod for Value<SourceChunk> {}

/// Why a ruleset did not get into the kernel.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The object in this binary is broken.
    #[error("the BPF object in this program is damaged: {0}; install it anew")]
    Object(String),
    /// A map could not be made or filled.
    #[error("can't make the BPF map {map}: {error}{}", kernel::advice(.error))]
    Map {
        /// Its name.
        map: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The verifier, or a missing privilege.
    #[error(
        "{}Linux {} refuses the BPF program: {error}{}",
        verifier_log(.log), kernel::release(), kernel::advice(.error)
    )]
    Program {
        /// What the kernel said.
        error: io::Error,
        /// What the verifier said.
        log: String,
    },
    /// RLIMIT_MEMLOCK, where the kernel charges maps and programs to it.
    #[error(
        "RLIMIT_MEMLOCK is {limit} bytes here, and maps and programs of these rules take about \
         {needed}; before Linux 5.11 (this is {}) those of all processes of a user count together: \
         set LimitMEMLOCK=infinity in the unit of the container runtime (containerd.service, \
         crio.service) and restart it; outside of containers, `ulimit -l unlimited`",
        kernel::release()
    )]
    Locked {
        /// The limit, in bytes.
        limit: u64,
        /// What all programs of the run and their maps take, in bytes, rounded up.
        needed: u64,
    },
}

impl ObjectError {
    /// What the kernel answered.
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::Object(_) | Self::Locked { .. } => None,
            Self::Map { error, .. } | Self::Program { error, .. } => Some(error),
        }
    }
}

fn verifier_log(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("the verifier's log ends so:\n{log}\n") }
}

/// What an attachment is told besides its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Bytes before the network header: 14 for Ethernet, 0 for a device such as tun.
    pub link_header: u32,
    /// Largest IP packet that may leave, in bytes; 0 on ingress.
    pub mtu: u32,
}

/// A ruleset in the kernel. It goes when this value does, unless a filter holds the program.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    maps: HashMap<&'static str, MapData>,
    /// What it took the verifier.
    pub effort: Effort,
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How the program reads headers. It does the same with them either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Those of most packets where they lie, which is faster.
    Direct,
    /// All of them by helpers: Linux before 6.6 (and before 6.1.55) lets no program compare packet
    /// pointers unless its loader has CAP_PERFMON (commit d75e30dddf73).
    ByHelpers,
}

impl Access {
    /// The faster one of those that the kernel allows this process.
    fn allowed(object: &Object) -> Result<Self, ObjectError> {
        static ALLOWED: OnceLock<Access> = OnceLock::new();
        let (instructions, license) = program(object, program_name::PROBE)?;
        Ok(*ALLOWED.get_or_init(|| {
            let (level, log) = (LogLevel::Summary, &mut [0; SUMMARY]);
            match sys::load_classifier(c"sfunnel_probe", instructions, license, level, log) {
                Ok(_) => Self::Direct,
                // If it is not for the comparison, the program will meet the same.
                Err(_) => Self::ByHelpers,
            }
        }))
    }

    fn program_name(self) -> &'static str {
        match self {
            Self::Direct => program_name::DIRECT,
            Self::ByHelpers => program_name::BY_HELPERS,
        }
    }
}

impl Program {
    /// Makes the maps of `compiled`, fills them and loads the program over them, in the form that
    /// suits the kernel.
    ///
    /// # Errors
    ///
    /// See [`ObjectError`]; nothing is left behind.
    pub fn load(compiled: &Compiled, link: Link) -> Result<Self, ObjectError> {
        Self::load_with(None, compiled, link)
    }

    /// Does what [`Program::load`] does, with a chosen [`Access`].
    ///
    /// # Errors
    ///
    /// See [`ObjectError`]; nothing is left behind.
    pub fn load_with(
        access: Option<Access>,
        compiled: &Compiled,
        link: Link,
    ) -> Result<Self, ObjectError> {
        let mut object = parse()?;
        let mut definitions = mem::take(&mut object.maps);
        let maps = Maps::create(&mut definitions, compiled, link)?;
        let (fd, effort) = load_program(object, access, &definitions, &maps)?;
        let source = maps.fd(map_name::SOURCE);
        sys::bind_map(fd.as_fd(), source)
            .map_err(|error| ObjectError::Map { map: map_name::SOURCE, error })?;
        Ok(Self { fd, maps: maps.0, effort })
    }

    /// Loads several, in order. Nearly all of the time is the verifier's, which checks one on each
    /// processor for a process with CAP_BPF.
    ///
    /// # Errors
    ///
    /// The first one's.
    pub fn load_all(jobs: &[(&Compiled, Link)]) -> Result<Vec<Self>, ObjectError> {
        Self::load_in_parallel(jobs).map_err(|error| {
            let refused = error.io_error().and_then(io::Error::raw_os_error) == Some(libc::EPERM);
            match kernel::locked_memory_limit() {
                Some(limit) if refused && kernel::missing_capabilities().is_empty() => {
                    let needed = jobs.iter().map(|(compiled, _)| locked_memory(compiled)).sum();
                    ObjectError::Locked { limit, needed }
                }
                _ => error,
            }
        })
    }

    fn load_in_parallel(jobs: &[(&Compiled, Link)]) -> Result<Vec<Self>, ObjectError> {
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let mut programs = Vec::with_capacity(jobs.len());
        for jobs in jobs.chunks(threads) {
            thread::scope(|scope| {
                let load = |&(compiled, link): &(&Compiled, Link)| Self::load(compiled, link);
                let Some((last, others)) = jobs.split_last() else { return Ok(()) };
                let others: Vec<_> = others
                    .iter()
                    .map(|job| {
                        let thread = thread::Builder::new().spawn_scoped(scope, move || load(job));
                        thread.map_err(|_| job)
                    })
                    .collect();
                let last = load(last);
                for other in others {
                    programs.push(match other {
                        Ok(thread) => thread.join().unwrap_or_else(|e| resume_unwind(e)),
                        // No thread can be had (RLIMIT_NPROC, a pids cgroup): it takes longer.
                        Err(job) => load(job),
                    }?);
                }
                programs.push(last?);
                Ok(())
            })?;
        }
        Ok(programs)
    }

    /// One of its maps.
    pub fn map(&self, name: &str) -> Option<&MapData> {
        self.maps.get(name)
    }
}

/// Every map in the object. `SCRATCH` is the program's own.
const MAPS: [&str; 8] = [
    map_name::CONFIG,
    map_name::NODES,
    map_name::ROWS,
    map_name::RULES,
    map_name::RULE_COUNTERS,
    map_name::REASONS,
    map_name::SOURCE,
    "SCRATCH",
];

/// The maps as the object describes them, by name.
type Definitions = HashMap<String, aya_obj::Map>;

struct Maps(HashMap<&'static str, MapData>);

impl Maps {
    /// Makes the maps, and enters into their definitions how many entries they have.
    fn create(
        definitions: &mut Definitions,
        compiled: &Compiled,
        link: Link,
    ) -> Result<Self, ObjectError> {
        let tables = &compiled.tables;
        let (mut actions, mut quoted_actions) = (0, 0);
        for rule in &tables.rules {
            quoted_actions |= 1 << rule.action;
            if rule.flags & flag::QUOTES == 0 {
                actions |= 1 << rule.action;
            }
        }
        let Link { link_header, mtu } = link;
        let (roots, words) = (tables.roots, abi::Tables::words(tables));
        let config = Config { roots, link_header, mtu, actions, quoted_actions, words };
        let source = chunks(&compiled.ruleset.to_string());

        let mut maps = Self(HashMap::new());
        for name in MAPS {
            let definition = definitions
                .get_mut(name)
                .ok_or_else(|| ObjectError::Object(format!("it has no map {name}")))?;
            definition.set_max_entries(entries(name, definition, compiled));
            if is_known(name, definition)
                && let aya_obj::Map::Legacy(map) = definition
            {
                map.def.map_flags |= BPF_F_RDONLY_PROG;
            }
            let map = MapData::create(definition.clone(), name, None)
                .map_err(|error| ObjectError::Map { map: name, error: io_error(error) })?;
            maps.0.insert(name, map);
        }
        maps.fill(map_name::CONFIG, [config])?;
        maps.fill(map_name::NODES, tables.nodes.iter().flat_map(node_entries))?;
        maps.fill(map_name::ROWS, tables.rows.iter().copied())?;
        maps.fill(map_name::RULES, tables.rules.iter().copied())?;
        maps.fill(map_name::SOURCE, source)?;
        for name in MAPS.into_iter().filter(|name| is_known(name, &definitions[*name])) {
            sys::freeze(maps.fd(name)).map_err(|error| ObjectError::Map { map: name, error })?;
        }
        Ok(maps)
    }

    fn fill<T>(
        &self,
        name: &'static str,
        values: impl IntoIterator<Item = T>,
    ) -> Result<(), ObjectError>
    where
        Value<T>: aya::Pod,
    {
        // Piece by piece: the largest tables are not to be held another time.
        const PIECE: u32 = 4096;
        let mut values = values.into_iter().map(Value);
        for first in (0..).step_by(PIECE as usize) {
            let piece: Vec<Value<T>> = values.by_ref().take(PIECE as usize).collect();
            sys::fill_array(self.fd(name), first, &piece)
                .map_err(|error| ObjectError::Map { map: name, error })?;
            if piece.len() < PIECE as usize {
                break;
            }
        }
        Ok(())
    }

    fn fd(&self, name: &str) -> BorrowedFd<'_> {
        self.0[name].fd().as_fd()
    }
}

/// Whether the verifier is to know what is in the map, which leaves it less of the program to check:
/// a third, for a single rule. It can if the map has one entry, is read-only for the program and
/// frozen for everybody else (Linux 5.5, commit a23740ec43ba); with more entries it refuses to read.
fn is_known(name: &str, definition: &aya_obj::Map) -> bool {
    matches!(name, map_name::CONFIG | map_name::RULES) && definition.max_entries() == 1
}

/// How many entries the map of this name has for these rules.
fn entries(name: &str, definition: &aya_obj::Map, compiled: &Compiled) -> u32 {
    let tables = &compiled.tables;
    let entries = match name {
        map_name::NODES => tables.nodes.len() * NODE_ENTRIES,
        map_name::ROWS => tables.rows.len(),
        map_name::RULES | map_name::RULE_COUNTERS => tables.rules.len(),
        map_name::SOURCE => chunks(&compiled.ruleset.to_string()).len(),
        _ => definition.max_entries() as usize,
    };
    // The compiler keeps all of them far below 2^32. There are no maps of none, such as the nodes of
    // rules that match every address and port would be.
    entries.max(1) as u32
}

/// Bytes that Linux before 5.11 charges to RLIMIT_MEMLOCK for a program with its maps, and some more:
/// `array_map_alloc` in kernel/bpf/arraymap.c, `bpf_prog_charge_memlock` in kernel/bpf/syscall.c.
fn locked_memory(compiled: &Compiled) -> u64 {
    const PAGE: u64 = 4096;
    /// `struct bpf_array` and `struct bpf_prog`, each rounded up.
    const HEADER: u64 = 512;
    let Ok(object) = parse() else { return 0 };
    let cpus = aya::util::nr_cpus().unwrap_or(1) as u64;
    let maps = object.maps.iter().map(|(name, definition)| {
        // Rounded up so that no index read ahead of its check is outside.
        let entries = u64::from(entries(name, definition, compiled).next_power_of_two());
        let value = u64::from(definition.value_size()).next_multiple_of(8);
        let per_cpu = definition.map_type() == BPF_MAP_TYPE_PERCPU_ARRAY as u32;
        HEADER + entries * if per_cpu { 8 + value * cpus } else { value }
    });
    // The verifier adds instructions: some for each map lookup and each barrier.
    let longest = object.functions.values().map(|function| function.instructions.len()).max();
    let program = HEADER + longest.unwrap_or_default() as u64 * size_of::<bpf_insn>() as u64 * 2;
    maps.chain([program]).map(|bytes| bytes.next_multiple_of(PAGE)).sum()
}

fn chunks(text: &str) -> Vec<SourceChunk> {
    const LEN: usize = size_of::<SourceChunk>();
    text.as_bytes()
        .chunks(LEN)
        .map(|part| {
            let mut chunk = [0; LEN];
            chunk[..part.len()].copy_from_slice(part);
            chunk
        })
        .collect()
}

fn parse() -> Result<Object, ObjectError> {
    Object::parse(OBJECT).map_err(|error| ObjectError::Object(error.to_string()))
}

/// Instructions and license of the program of this name.
fn program<'a>(object: &'a Object, name: &str) -> Result<(&'a [bpf_insn], &'a CStr), ObjectError> {
    let missing = || ObjectError::Object(format!("it has no program {name}"));
    let program = object.programs.get(name).ok_or_else(missing)?;
    let function = object.functions.get(&program.function_key()).ok_or_else(missing)?;
    Ok((&function.instructions, &program.license))
}

fn load_program(
    mut object: Object,
    access: Option<Access>,
    definitions: &Definitions,
    maps: &Maps,
) -> Result<(OwnedFd, Effort), ObjectError> {
    let damaged = |what: &dyn std::fmt::Display| ObjectError::Object(what.to_string());
    let text_sections: HashSet<usize> =
        object.functions.keys().map(|&(section, _)| section).collect();
    let fds = MAPS.iter().map(|&name| (name, maps.fd(name).as_raw_fd(), &definitions[name]));
    object.relocate_maps(fds, &text_sections).map_err(|e| damaged(&e))?;
    object.relocate_calls(&text_sections).map_err(|e| damaged(&e))?;

    let access = access.map_or_else(|| Access::allowed(&object), Ok)?;
    let (instructions, license) = program(&object, access.program_name())?;
    // `tc filter show` and bpftool call either form so.
    let load =
        |level, log: &mut [u8]| sys::load_classifier(c"sfunnel", instructions, license, level, log);
    let mut log = vec![0; SUMMARY];
    if let Ok(fd) = load(LogLevel::Summary, &mut log) {
        return Ok((fd, Effort::read(&lines(&log))));
    }
    // Once more, for the log. It is long; the end tells.
    log.resize(16 << 20, 0);
    match load(LogLevel::All, &mut log) {
        Ok(fd) => Ok((fd, Effort::read(&lines(&log)))),
        Err(error) => Err(ObjectError::Program { error, log: tail(&lines(&log)) }),
    }
}

/// Bytes that are enough for the verifier's summary, and for why it refuses.
const SUMMARY: usize = 4096;

/// How much the verifier had to do for a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Instructions that it looked at, of the million that it may look at.
    pub instructions: u64,
    /// Microseconds that it took.
    pub microseconds: u64,
}

impl Effort {
    /// `print_verification_stats` in kernel/bpf/verifier.c has written it.
    fn read(log: &str) -> Self {
        let number = |before: &str| {
            let (_, rest) = log.rsplit_once(before)?;
            rest.split(' ').next()?.parse().ok()
        };
        Self {
            instructions: number("processed ").unwrap_or_default(),
            microseconds: number("verification time ").unwrap_or_default(),
        }
    }
}

/// A NUL-terminated log.
fn lines(log: &[u8]) -> Cow<'_, str> {
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end])
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    const LINES: usize = 12;
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

fn io_error(error: aya::maps::MapError) -> io::Error {
    match error {
        aya::maps::MapError::CreateError { io_error, .. }
        | aya::maps::MapError::IoError(io_error) => io_error,
        aya::maps::MapError::SyscallError(error) => error.io_error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// See the table in injector-bpf/src/bpf/verifier.rs.
    #[test]
    fn nothing_on_the_stack_is_stored_in_pieces() {
        const FRAME_POINTER: u8 = 10;
        let object = parse().unwrap();
        for name in [program_name::DIRECT, program_name::BY_HELPERS] {
            let (instructions, _) = program(&object, name).unwrap();
            let mut slots: BTreeMap<i16, HashSet<(i16, i16)>> = BTreeMap::new();
            for instruction in instructions {
                // Classes BPF_ST and BPF_STX; sizes BPF_W, BPF_H, BPF_B and BPF_DW.
                let is_store = matches!(instruction.code & 0x07, 2 | 3);
                if is_store && instruction.dst_reg() == FRAME_POINTER {
                    let bytes = [4, 2, 1, 8][usize::from(instruction.code >> 3 & 3)];
                    let at = instruction.off;
                    slots.entry(at.div_euclid(8)).or_default().insert((at, bytes));
                }
            }
            assert!(slots.len() > 10, "{name}: {slots:?}");
            slots.retain(|_, stores| stores.len() > 1);
            assert!(slots.is_empty(), "{name}: place and bytes of stores: {slots:?}");
        }
    }
}
