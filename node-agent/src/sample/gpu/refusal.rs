//! Errors of the library, by the name of their reason in a series.

use nvml_wrapper::error::NvmlError;

/// Why the library, or a call of it, gives nothing.
pub(super) fn reason(error: &NvmlError) -> &'static str {
    match error {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => "library_not_found",
        NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => "function_not_found",
        NvmlError::DriverNotLoaded => "driver_not_loaded",
        NvmlError::LibRmVersionMismatch => "driver_mismatch",
        NvmlError::NoPermission => "permission_denied",
        NvmlError::NotSupported => "not_supported",
        NvmlError::GpuLost => "gpu_is_lost",
        NvmlError::ResetRequired => "reset_required",
        NvmlError::Timeout => "timeout",
        _ => "unreadable",
    }
}
