//! rtnetlink: interfaces and their segmentation limit, the clsact qdisc, BPF filters on it.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage,
    TcOption,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// EtherType of a filter that sees all packets, in network byte order as `tcm_info` has it.
pub const ETH_P_ALL: u16 = (libc::ETH_P_ALL as u16).to_be();

/// A hook of the clsact qdisc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// What the interface receives.
    Ingress,
    /// What it sends.
    Egress,
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

impl Hook {
    /// Every one.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The other one.
    pub const fn opposite(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }

    fn parent(self) -> TcHandle {
        let minor = match self {
            Self::Ingress => TcHandle::MIN_INGRESS,
            Self::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: TcHandle::CLSACT.major, minor }
    }
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: i32,
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Segments in a packet that the stack gives it to send, at the most.
    pub gso_max_segs: u32,
    /// It is up.
    pub up: bool,
    /// It is the loopback.
    pub loopback: bool,
    /// Bytes before the network header. `None`: a link layer that the program does not know.
    pub link_header: Option<u32>,
}

/// A filter that `tc filter show` would list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The interface's number.
    pub index: i32,
    /// Where on the interface.
    pub hook: Hook,
    /// Packets pass chain 0; the others are where a filter's action may send them.
    pub chain: u32,
    /// Lower ones are asked first.
    pub priority: u16,
    /// EtherType of the packets that it sees, as [`ETH_P_ALL`] is one.
    pub protocol: u16,
    /// Tells apart filters of one priority.
    pub handle: u32,
    /// What `tc` calls the kind: `bpf`, `flower`...
    pub kind: String,
    /// Name of the BPF filter.
    pub name: Option<String>,
    /// Number of the BPF program.
    pub program: Option<u32>,
}

/// A socket to the kernel's routing subsystem, in the network namespace that it was made in.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens the socket.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All interfaces.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        let answers = self.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(interface(&link)),
                _ => None,
            })
            .collect())
    }

    /// Sets how many segments a packet may have that the stack gives the interface to send
    /// (Linux 4.16, commit 46e6b992c250). A connection keeps the limit that it began with.
    ///
    /// # Errors
    ///
    /// The kernel's; `EINVAL` if it is more than the interface can take.
    pub fn set_gso_max_segs(&mut self, index: i32, segments: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index as u32;
        message.attributes.push(LinkAttribute::GsoMaxSegs(segments));
        self.ask(RouteNetlinkMessage::SetLink(message), 0).map(drop)
    }

    /// Makes sure that the interface has a clsact qdisc. Whether it had to be made.
    ///
    /// # Errors
    ///
    /// The kernel's; `EEXIST` or `EBUSY` if another qdisc has its place.
    pub fn ensure_clsact(&mut self, index: i32) -> io::Result<bool> {
        match self
            .ask(RouteNetlinkMessage::NewQueueDiscipline(clsact(index)), NLM_F_CREATE | NLM_F_EXCL)
        {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                if self.has_clsact(index)? {
                    Ok(false)
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the interface has a clsact qdisc, and not the older ingress one in its place.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn has_clsact(&mut self, index: i32) -> io::Result<bool> {
        let answers =
            self.ask(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()), NLM_F_DUMP)?;
        Ok(answers.iter().any(|answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(message) => {
                message.header.index == index
                    && message.attributes.contains(&TcAttribute::Kind("clsact".into()))
            }
            _ => false,
        }))
    }

    /// Removes the clsact qdisc, and every filter on it.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn remove_clsact(&mut self, index: i32) -> io::Result<()> {
        self.ask(RouteNetlinkMessage::DelQueueDiscipline(clsact(index)), 0).map(drop)
    }

    /// All filters on a hook. None where there is no clsact qdisc.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn filters(&mut self, index: i32, hook: Hook) -> io::Result<Vec<Filter>> {
        let mut message = TcMessage::default();
        message.header = TcHeader { index, parent: hook.parent(), ..TcHeader::default() };
        let answers = match self.ask(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP) {
            Ok(answers) => answers,
            // What a kernel says of an interface that has no such qdisc.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewTrafficFilter(message) => filter(&message, hook),
                _ => None,
            })
            .collect())
    }

    /// Attaches `program` as the filter of this priority and handle, or puts it in the place of the
    /// one that is there in one step.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_filter(
        &mut self,
        index: i32,
        hook: Hook,
        place: Place<'_>,
        program: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut message = filter_message(index, hook, place);
        message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.into()));
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(place.name.into())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        self.ask(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE).map(drop)
    }

    /// Removes one filter.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn remove_filter(&mut self, index: i32, hook: Hook, place: Place<'_>) -> io::Result<()> {
        let message = filter_message(index, hook, place);
        self.ask(RouteNetlinkMessage::DelTrafficFilter(message), 0).map(drop)
    }

    /// Sends a request and collects the answers up to the acknowledgement or the dump's end.
    ///
    /// A dump during which something changed may lack something; it is asked for again.
    fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        const ATTEMPTS: usize = 10;
        for _ in 1..ATTEMPTS {
            if let Some(answers) = self.ask_once(request.clone(), flags)? {
                return Ok(answers);
            }
        }
        let answers = self.ask_once(request, flags)?;
        answers.ok_or_else(|| io::Error::from_raw_os_error(libc::EAGAIN))
    }

    /// `None`: the dump was interrupted.
    fn ask_once(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | if flags == NLM_F_DUMP { flags } else { NLM_F_ACK | flags };
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let invalid =
                    |e| io::Error::new(io::ErrorKind::InvalidData, format!("netlink: {e}"));
                let buffer = NetlinkBuffer::new_checked(rest).map_err(invalid)?;
                let len = buffer.length() as usize;
                let ours = buffer.sequence_number() == self.sequence;
                interrupted |= ours && buffer.flags() & NLM_F_DUMP_INTR != 0;
                match NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) {
                    Ok(message) if ours => match message.payload {
                        NetlinkPayload::Done(done) if done.code < 0 => {
                            return Err(io::Error::from_raw_os_error(-done.code));
                        }
                        NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(answers)),
                        NetlinkPayload::Error(error) if error.code.is_none() => {
                            return Ok(Some(answers));
                        }
                        NetlinkPayload::Error(error) => return Err(error.to_io()),
                        NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                        _ => {}
                    },
                    Err(error) if buffer.message_type() == libc::RTM_NEWLINK => {
                        return Err(invalid(error));
                    }
                    // A filter or a qdisc of a kind that the library can't read is not ours.
                    _ => {}
                }
                // Messages are padded to four bytes.
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// Where a filter of ours stands on a hook.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Lower ones are asked first.
    pub priority: u16,
    /// Tells apart filters of one priority.
    pub handle: u32,
    /// What `tc filter show` prints.
    pub name: &'a str,
}

fn clsact(index: i32) -> TcMessage {
    let mut message = TcMessage::default();
    let handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    message.header = TcHeader { index, handle, parent: TcHandle::CLSACT, ..TcHeader::default() };
    message.attributes.push(TcAttribute::Kind("clsact".into()));
    message
}

fn filter_message(index: i32, hook: Hook, place: Place<'_>) -> TcMessage {
    let mut message = TcMessage::default();
    message.header = TcHeader {
        index,
        handle: place.handle.into(),
        parent: hook.parent(),
        info: u32::from(place.priority) << 16 | u32::from(ETH_P_ALL),
        ..TcHeader::default()
    };
    message
}

fn filter(message: &TcMessage, hook: Hook) -> Option<Filter> {
    let mut filter = Filter {
        index: message.header.index,
        hook,
        chain: 0,
        priority: (message.header.info >> 16) as u16,
        protocol: message.header.info as u16,
        handle: message.header.handle.into(),
        kind: String::new(),
        name: None,
        program: None,
    };
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => filter.kind.clone_from(kind),
            TcAttribute::Chain(chain) => filter.chain = *chain,
            TcAttribute::Options(options) => {
                for option in options {
                    match option {
                        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => {
                            filter.name = Some(name.clone());
                        }
                        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.program = Some(*id),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    // The kernel lists a priority once by itself, with handle 0, and then its filters.
    (filter.handle != 0).then_some(filter)
}

fn interface(link: &LinkMessage) -> Interface {
    let mut interface = Interface {
        index: link.header.index as i32,
        name: String::new(),
        mtu: 0,
        gso_max_segs: 0,
        up: link.header.flags.contains(LinkFlags::Up),
        loopback: link.header.flags.contains(LinkFlags::Loopback),
        link_header: link_header(link.header.link_layer_type),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::GsoMaxSegs(segments) => interface.gso_max_segs = *segments,
            _ => {}
        }
    }
    interface
}

/// Bytes that a tc program sees before the network header on a device of this type.
fn link_header(kind: LinkLayerType) -> Option<u32> {
    match kind {
        LinkLayerType::Ether | LinkLayerType::Loopback => Some(14),
        // tun, WireGuard, ppp, IP in IP: the packet starts with its IP header.
        LinkLayerType::None
        | LinkLayerType::Rawip
        | LinkLayerType::Ppp
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit => Some(0),
        _ => None,
    }
}
