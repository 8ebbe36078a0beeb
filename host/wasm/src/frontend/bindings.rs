//! Generated from `guest-sdk/wit/frontend`.
#![allow(
    missing_docs,
    unsafe_code,
    clippy::all,
    rust_2018_idioms,
    reason = "generated"
)]

wasmtime::component::bindgen!({
    path: "../../guest-sdk/wit/frontend",
    world: "frontend",
    imports: { default: trappable },
    with: {
        "stepwell:frontend/graph.vertex": stepwell_model::VertexId,
        "stepwell:frontend/graph.git-source": stepwell_model::op::GitOp,
        "stepwell:frontend/graph.run": super::state::Run,
        "stepwell:frontend/graph.mount": super::state::Mount,
        "stepwell:frontend/graph.file-copy": super::state::Copy,
        "stepwell:frontend/graph.files": super::state::Files,
        "stepwell:frontend/images.image-config": stepwell_model::ImageConfig,
        "stepwell:frontend/images.resolved-image": super::host::ResolvedImage,
        "stepwell:frontend/outcome.description": super::Description,
        "stepwell:frontend/outcome.image": super::state::Image,
    },
    require_store_data_send: true,
});
