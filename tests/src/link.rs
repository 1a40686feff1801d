//! Frames on an interface, with the checksum finished or pending.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

/// A packet socket bound to one interface of the current network namespace.
pub struct Link {
    socket: OwnedFd,
    /// The interface's number.
    index: i32,
}

/// Where a frame's checksum is yet to be finished, as the kernel notes it for itself
/// (`CHECKSUM_PARTIAL`).
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// Where summing starts, from the start of the frame.
    pub start: u16,
    /// Where the checksum goes, from there.
    pub offset: u16,
}

/// Bytes of `struct virtio_net_hdr`, include/uapi/linux/virtio_net.h.
const VNET_HEADER: usize = 10;

impl Link {
    /// Opens the interface. Every frame sent or received on it passes the tc hooks.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn open(name: &str) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(name)?;
        let protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
        // SAFETY: no pointers.
        let fd = check(unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol)
        })?;
        // SAFETY: a descriptor that was just made.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: zero is a value of every field.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol as u16;
        address.sll_ifindex = index as i32;
        // SAFETY: the address is one, of that size.
        check(unsafe {
            libc::bind(fd, (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32)
        })?;
        let link = Self { socket, index: index as i32 };
        link.set_option(libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1_i32)?;
        link.set_option(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1_i32)?;
        // As much as fits: tests receive only after they have sent.
        link.set_option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(64_i32 << 20))?;
        Ok(link)
    }

    fn set_option<T>(&self, level: i32, name: i32, value: &T) -> io::Result<()> {
        // SAFETY: the value is one, of that size.
        check(unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                level,
                name,
                std::ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
            )
        })
        .map(drop)
    }

    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn send(&self, frame: &[u8], pending: Option<Pending>) -> io::Result<()> {
        self.send_as(frame, pending, libc::ETH_P_ALL as u16)
    }

    /// Sends a frame, and tells the kernel that its EtherType is another one than the frame says.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn send_as(
        &self,
        frame: &[u8],
        pending: Option<Pending>,
        ethertype: u16,
    ) -> io::Result<()> {
        let mut bytes = vec![0; VNET_HEADER];
        if let Some(Pending { start, offset }) = pending {
            // VIRTIO_NET_HDR_F_NEEDS_CSUM; no segmentation; start and offset.
            bytes[0] = 1;
            bytes[6..8].copy_from_slice(&start.to_ne_bytes());
            bytes[8..10].copy_from_slice(&offset.to_ne_bytes());
        }
        bytes.extend(frame);
        // SAFETY: zero is a value of every field.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_protocol = ethertype.to_be();
        to.sll_ifindex = self.index;
        // SAFETY: the buffer has that many bytes, and the address is one, of that size.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame that the interface received, if one comes within `timeout`; with its VLAN tag,
    /// which the kernel holds apart, and with its checksum finished, as a network card would put it
    /// on the wire.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn receive(&self, timeout: Duration) -> io::Result<Option<Received>> {
        let timeval = libc::timeval {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_usec: timeout.subsec_micros().max(1).into(),
        };
        self.set_option(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeval)?;
        loop {
            let mut bytes = vec![0; 1 << 16];
            // SAFETY: zero is a value of every field of both.
            let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) =
                unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
            // Aligned as the headers in it have to be.
            let mut control = [0_u64; 16];
            let mut data =
                libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            message.msg_name = (&raw mut from).cast();
            message.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
            message.msg_iov = &raw mut data;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control);
            // SAFETY: the message names the buffers above, with their sizes.
            let len = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
            if len < 0 {
                let error = io::Error::last_os_error();
                return match error.kind() {
                    io::ErrorKind::WouldBlock => Ok(None),
                    io::ErrorKind::Interrupted => continue,
                    _ => Err(error),
                };
            }
            // What this side sends is shown to packet sockets as well.
            if from.sll_pkttype == libc::PACKET_OUTGOING {
                continue;
            }
            bytes.truncate(len as usize);
            let mut frame = bytes.split_off(VNET_HEADER);
            let pending = bytes[0] & 1 != 0;
            if pending {
                let word = |at: usize| usize::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]]));
                finish(&mut frame, word(6), word(8));
            }
            if let Some(tag) = vlan_tag(&message) {
                frame.splice(12..12, tag);
            }
            return Ok(Some(Received { frame, pending }));
        }
    }
}

/// A frame that was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// What a wire would carry.
    pub frame: Vec<u8>,
    /// The kernel had yet to finish its checksum.
    pub pending: bool,
}

/// Finishes a checksum as a network card does: sums up from `start` to the end, and writes the
/// complement `offset` bytes behind it.
pub fn finish(frame: &mut [u8], start: usize, offset: usize) {
    let check = match !crate::model::sum(&frame[start..]) {
        // As the kernel does for every protocol (skb_checksum_help).
        0 => 0xFFFF,
        check => check,
    };
    frame[start + offset..start + offset + 2].copy_from_slice(&check.to_be_bytes());
}

/// The VLAN tag in a message's control data, as it would stand in the frame.
fn vlan_tag(message: &libc::msghdr) -> Option<[u8; 4]> {
    // SAFETY: the kernel has filled in the message, and its buffers are still there.
    let auxiliary = unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        if header.is_null() || (*header).cmsg_type != libc::PACKET_AUXDATA {
            return None;
        }
        libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned()
    };
    let [tpid, tci] = [auxiliary.tp_vlan_tpid, auxiliary.tp_vlan_tci].map(u16::to_be_bytes);
    let valid = auxiliary.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
    valid.then_some([tpid[0], tpid[1], tci[0], tci[1]])
}

fn check(rc: i32) -> io::Result<i32> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}
