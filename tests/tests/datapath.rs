//! The program against the model, packet by packet, through `BPF_PROG_TEST_RUN`.

#[path = "datapath/encapsulation.rs"]
mod encapsulation;
#[path = "datapath/family.rs"]
mod family;
#[path = "datapath/hostile.rs"]
mod hostile;
#[path = "datapath/icmp.rs"]
mod icmp;
#[path = "datapath/in_place.rs"]
mod in_place;
#[path = "datapath/not_done.rs"]
mod not_done;
