// Written by edgecls for {{ name }}. Change the package; export again when the model changes.
package {{ package }}

import android.content.Context
import android.graphics.Bitmap
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import kotlin.math.{{ "ceil" if interpolation == "area" else "abs" }}
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min

/**
 * Classifies photos with assets/model.tflite.
 *
 * Making one loads the model, which takes longer than a photo: make it once, off the main thread. Calls may come from
 * several threads; they wait for each other.
 */
class PhotoClassifier(context: Context, accelerator: Accelerator = Accelerator.CPU) : AutoCloseable {
    /** The class names, in the order of the scores. */
    val labels: List<String> =
        context.assets.open("labels.txt").bufferedReader().use { it.readText() }.removeSuffix("\n").split("\n")

    private val model = CompiledModel.create(context.assets, "model.tflite", CompiledModel.Options(accelerator))
    private val inputs = model.createInputBuffers()
    private val outputs = model.createOutputBuffers()

    /** The {{ scores }} of [photo], one a class. The photo is an upright software bitmap in ARGB_8888. */
    fun scores(photo: Bitmap): FloatArray {
        val row = IntArray(photo.width)
        return scores(pixels(photo.width, photo.height) { y ->
            photo.getPixels(row, 0, photo.width, 0, y, photo.width, 1)
            row
        })
    }

    /** The {{ scores }} of the network's input as [Companion.pixels] makes it. */
    @Synchronized
    fun scores(pixels: ByteArray): FloatArray {
        inputs[0].writeInt8(pixels)
        model.run(inputs, outputs)
{% if scale %}
        return outputs[0].readInt8().map { ((it.toInt() and 255) - {{ zero_point }}) * {{ scale }}f }.toFloatArray()
{% else %}
        return outputs[0].readFloat()
{% endif %}
    }

    /** The [count] likeliest classes of [photo] with their {{ scores }}, likeliest first. */
    fun top(photo: Bitmap, count: Int = 5): List<Pair<String, Float>> {
        val scores = scores(photo)
        return scores.indices.sortedByDescending { scores[it] }.take(count).map { labels[it] to scores[it] }
    }

    override fun close() {
        inputs.forEach { it.close() }
        outputs.forEach { it.close() }
        model.close()
    }

    companion object {
        /** Side of the network's input, pixels. */
        const val SIZE = {{ size }}

        /** Short side of the resized photo, pixels. */
        const val SHORT = {{ resize_short }}

        /**
         * The network's input: RGB bytes [SIZE, SIZE, 3].
         *
         * {{ text | wordwrap(105, break_on_hyphens=false, wrapstring="\n         * ") }}.
         *
         * [row] gives the pixels of a row of the photo, 0xRRGGBB each; what is above those 24 bits does not matter.
         */
        fun pixels(width: Int, height: Int, row: (Int) -> IntArray): ByteArray {
            val scale = SHORT.toDouble() / min(width, height)
            val columns = taps(width, Math.rint(width * scale).toInt())
            val rows = taps(height, Math.rint(height * scale).toInt())
            val narrow = HashMap<Int, DoubleArray>()  // rows of the photo, resized to SIZE pixels
            val result = ByteArray(SIZE * SIZE * 3)
            for ((y, tap) in rows.withIndex()) {
                narrow.keys.removeAll { it < tap.first }
                val lines = tap.weights.indices.map { k -> narrow.getOrPut(tap.first + k) { resized(row(tap.first + k), columns) } }
                for (i in 0 until SIZE * 3) {
                    var sum = 0.0
                    for (k in lines.indices) sum += lines[k][i] * tap.weights[k]
                    result[y * SIZE * 3 + i] = byte(sum).toInt().toByte()
                }
            }
            return result
        }

        private class Tap(val first: Int, val weights: DoubleArray)

        private fun byte(value: Double) = {{ "floor(value + 0.5)" if antialias else "Math.rint(value)" }}.coerceIn(0.0, 255.0)

        private fun resized(row: IntArray, columns: List<Tap>): DoubleArray {
            val line = DoubleArray(SIZE * 3)
            for ((x, tap) in columns.withIndex()) {
                for (channel in 0..2) {
                    var sum = 0.0
                    for (k in tap.weights.indices) {
                        sum += ((row[tap.first + k] shr (16 - 8 * channel)) and 255) * tap.weights[k]
                    }
                    line[x * 3 + channel] = {{ "byte(sum)" if antialias else "sum" }}
                }
            }
            return line
        }

        /** For each kept pixel of a side that shrinks or grows from [old] to [new]: the old pixels that it is made of. */
        private fun taps(old: Int, new: Int): List<Tap> = List(SIZE) { index ->
            val step = old.toDouble() / new
            val cell = index + (new - SIZE) / 2
{% if antialias %}
            val wide = max(step, 1.0)  // where a photo gets smaller, the kernel gets wider
            val center = (cell + 0.5) * step
            val first = max(0, (center - {{ reach }} * wide + 0.5).toInt())
            val end = min(old, (center + {{ reach }} * wide + 0.5).toInt())
            val weights = DoubleArray(end - first) { kernel(abs(first + it + 0.5 - center) / wide) }
{% elif interpolation == "area" %}
            val first = floor(cell * step).toInt()
            val end = min(old, ceil((cell + 1) * step).toInt())
            val weights = DoubleArray(end - first) { min(first + it + 1.0, (cell + 1) * step) - max(first + it + 0.0, cell * step) }
{% else %}
            val at = ((cell + 0.5) * step - 0.5).toFloat()  // half-pixel centers
            val low = floor(at).toInt()
            val first = max(0, low - {{ reach - 1 }})
            val end = min(old, low + {{ reach + 1 }})
            val part = {{ "(at - low).toDouble()" if interpolation == "bilinear" else "Math.rint((at - low) * 1024.0) / 1024" }}
            val weights = DoubleArray(end - first) { kernel(abs(first + it - low - part)) }
{% endif %}
            val sum = weights.sum()
            Tap(first, DoubleArray(weights.size) { {{ "Math.rint(weights[it] / sum * 4194304) / 4194304" if antialias else "weights[it] / sum" }} })
        }
{% if interpolation == "bilinear" %}

        private fun kernel(t: Double) = max(0.0, 1 - t)
{% elif interpolation == "bicubic" %}

        /** Keys' kernel with a = -0.5. */
        private fun kernel(t: Double) = when {
            t < 1 -> (1.5 * t - 2.5) * t * t + 1
            t < 2 -> ((2.5 - 0.5 * t) * t - 4) * t + 2
            else -> 0.0
        }
{% endif %}
    }
}
