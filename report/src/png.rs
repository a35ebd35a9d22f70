//! Charts as PNG files.

use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::Database;
use resvg::usvg::{Options, Tree};

use crate::error::Error;

/// The longest side, in pixels.
const MOST: f32 = 16_384.0;

/// DejaVu Sans, so that images are the same everywhere, and the system's fonts for characters that
/// it lacks.
static FONTS: LazyLock<Arc<Database>> = LazyLock::new(|| {
    let mut fonts = Database::new();
    fonts.load_font_data(dejavu::sans::regular().to_vec());
    fonts.load_font_data(dejavu::sans::bold().to_vec());
    fonts.load_system_fonts();
    fonts.set_sans_serif_family("DejaVu Sans");
    Arc::new(fonts)
});

/// Draws a chart as a PNG file of this width in pixels, in light colours.
///
/// # Errors
///
/// [`Error::Image`] if `svg` is not SVG, or a side would be 0 or longer than 16,384 pixels.
pub fn png(svg: &str, width: u32) -> Result<Vec<u8>, Error> {
    let image = |cause: String| Error::Image(cause);
    let options = Options { fontdb: FONTS.clone(), ..Options::default() };
    let tree = Tree::from_str(svg, &options).map_err(|e| image(e.to_string()))?;
    let scale = width as f32 / tree.size().width();
    let height = (tree.size().height() * scale).round();
    let size = format!("{width} x {height} pixels");
    let sides = [width as f32, height];
    let pixmap = sides.iter().all(|side| (1.0..=MOST).contains(side));
    let mut pixmap = pixmap
        .then(|| Pixmap::new(width, height as u32))
        .flatten()
        .ok_or_else(|| image(format!("{size} is no size for a picture")))?;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixmap.as_mut());
    pixmap.encode_png().map_err(|e| image(e.to_string()))
}
