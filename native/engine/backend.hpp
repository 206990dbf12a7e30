// Backends and devices: loaded by explicit path only, because the default search looks into the working directory.
#pragma once

namespace olm {

// NOT_INITIALIZED unless olm_init() has loaded a CPU backend.
void require_backend();

}  // namespace olm
