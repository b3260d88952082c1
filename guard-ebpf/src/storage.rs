//! Socket storage from any hook: the library's own methods know only the address hooks.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    btf_maps::SkStorage,
    helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get},
};

/// The record of `sk`, if there is one. `sk` is a socket or, in `sock_create`, the context.
#[inline(always)]
pub(crate) fn get<T>(map: &'static SkStorage<T>, sk: *mut c_void) -> Option<*const T> {
    // SAFETY: the verifier checks that `sk` is a socket; without CREATE a missing record gives null.
    let record = unsafe { bpf_sk_storage_get(ptr::from_ref(map).cast_mut().cast(), sk, ptr::null_mut(), 0) };
    (!record.is_null()).then_some(record.cast_const().cast())
}

/// Gives `sk` this record; it must have none of this map yet. False if the kernel had no room for it.
#[inline(always)]
#[must_use]
pub(crate) fn put<T>(map: &'static SkStorage<T>, sk: *mut c_void, record: &mut T) -> bool {
    let (map, record) = (ptr::from_ref(map).cast_mut().cast(), ptr::from_mut(record).cast());
    // SAFETY: the verifier checks `sk` and that `record` holds as many initialised bytes as the map's value.
    let stored = unsafe { bpf_sk_storage_get(map, sk, record, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) };
    !stored.is_null()
}

/// Takes the record away. Cheap on a socket that never had any.
#[inline(always)]
pub(crate) fn remove<T>(map: &'static SkStorage<T>, sk: *mut c_void) {
    // SAFETY: the verifier checks `sk`. "Not found" is as good as removed.
    unsafe { bpf_sk_storage_delete(ptr::from_ref(map).cast_mut().cast(), sk) };
}
