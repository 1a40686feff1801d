//! The first bytes of a frame, read where they lie.
//!
//! Faster than a helper by the time that most packets are looked at. Offsets are constants: without
//! CAP_PERFMON the verifier refuses to add anything else to a packet pointer.

/// The first `LEN` bytes of a frame. No helper that may move the packet is called while it lives.
pub struct Linear<const LEN: usize>(usize);

impl<const LEN: usize> Linear<LEN> {
    /// `None`: the frame is shorter, or the kernel holds these bytes elsewhere.
    #[inline(always)]
    pub fn new(data: usize, data_end: usize) -> Option<Self> {
        // In this form the verifier learns from it how many bytes there are.
        if data + LEN > data_end { None } else { Some(Self(data)) }
    }

    /// Two bytes, in network byte order.
    #[inline(always)]
    pub fn load16<const AT: usize>(&self) -> u16 {
        const { assert!(AT + 2 <= LEN) };
        let mut value = self.0;
        // SAFETY: the bytes are there. No alignment is asked for, as a Rust pointer would.
        unsafe {
            core::arch::asm!(
                "{0} = *(u16 *)({0} + {1})",
                inout(reg) value,
                const AT,
                options(nostack)
            );
        }
        value as u16
    }

    /// Four bytes, in network byte order.
    #[inline(always)]
    pub fn load32<const AT: usize>(&self) -> u32 {
        const { assert!(AT + 4 <= LEN) };
        let mut value = self.0;
        // SAFETY: as above.
        unsafe {
            core::arch::asm!(
                "{0} = *(u32 *)({0} + {1})",
                inout(reg) value,
                const AT,
                options(nostack)
            );
        }
        value as u32
    }
}
