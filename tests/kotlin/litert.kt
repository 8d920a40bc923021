// The part of LiteRT 2.x that PhotoClassifier calls, with the types of its own sources. It computes nothing: an output is read
// from a file beside the model, and the input that the model was given is written there.
package com.google.ai.edge.litert

import android.content.Assets
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

enum class Accelerator { NONE, CPU, GPU, NPU }

class TensorBuffer : AutoCloseable {
    var bytes = ByteArray(0)

    fun writeInt8(data: ByteArray) {
        bytes = data.copyOf()
    }

    fun readInt8(): ByteArray = bytes

    fun readFloat(): FloatArray =
        FloatArray(bytes.size / 4).also { ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(it) }

    override fun close() = Unit
}

class CompiledModel private constructor(private val file: File) : AutoCloseable {
    class Options(vararg val accelerators: Accelerator)

    fun createInputBuffers(): List<TensorBuffer> = listOf(TensorBuffer())

    fun createOutputBuffers(): List<TensorBuffer> = listOf(TensorBuffer())

    fun run(inputs: List<TensorBuffer>, outputs: List<TensorBuffer>) {
        File(file.parentFile, "input").writeBytes(inputs[0].bytes)
        outputs[0].bytes = File(file.parentFile, "output").readBytes()
    }

    override fun close() = Unit

    companion object {
        fun create(assets: Assets, name: String, options: Options): CompiledModel {
            require(options.accelerators.isNotEmpty())
            return CompiledModel(File(assets.folder, name).also { require(it.isFile) })
        }
    }
}
