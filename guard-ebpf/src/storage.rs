//! Socket storage from any hook: the library's own methods know only the address hooks.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type},
    btf_maps::SkStorage,
    helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get},
};

/// Any map of socket storage.
pub(crate) trait SocketMap {
    /// Its value.
    type Record;
}

impl<T> SocketMap for SkStorage<T> {
    type Record = T;
}

/// Socket storage that an accepted socket inherits from its listener: the library's own type cannot ask for
/// that flag. Only the field names and types matter; the loader reads them from the type information.
#[repr(C)]
pub(crate) struct Inherited<T> {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; INHERITED],
}

const INHERITED: usize = (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize;

// SAFETY: placeholder pointers that nobody follows.
unsafe impl<T> Sync for Inherited<T> {}

impl<T> Inherited<T> {
    pub(crate) const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }
}

impl<T> SocketMap for Inherited<T> {
    type Record = T;
}

/// The record of `sk`, if there is one. `sk` is a socket or, in `sock_create`, the context.
#[inline(always)]
pub(crate) fn get<M: SocketMap>(map: &'static M, sk: *mut c_void) -> Option<*const M::Record> {
    // SAFETY: the verifier checks that `sk` is a socket; without CREATE a missing record gives null.
    let record = unsafe { bpf_sk_storage_get(ptr::from_ref(map).cast_mut().cast(), sk, ptr::null_mut(), 0) };
    (!record.is_null()).then_some(record.cast_const().cast())
}

/// Gives `sk` this record; one of this map that it has already stays. False if the kernel had no room for it.
#[inline(always)]
#[must_use]
pub(crate) fn put<M: SocketMap>(map: &'static M, sk: *mut c_void, record: &mut M::Record) -> bool {
    let (map, record) = (ptr::from_ref(map).cast_mut().cast(), ptr::from_mut(record).cast());
    // SAFETY: the verifier checks `sk` and that `record` holds as many initialised bytes as the map's value.
    let stored = unsafe { bpf_sk_storage_get(map, sk, record, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) };
    !stored.is_null()
}

/// Takes the record away. Cheap on a socket that never had any.
#[inline(always)]
pub(crate) fn remove<M: SocketMap>(map: &'static M, sk: *mut c_void) {
    // SAFETY: the verifier checks `sk`. "Not found" is as good as removed.
    unsafe { bpf_sk_storage_delete(ptr::from_ref(map).cast_mut().cast(), sk) };
}
