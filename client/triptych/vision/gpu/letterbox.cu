// Resizes decoded pictures into their letterboxes. Whole numbers alone, so that every GPU, and NumPy, give the same bits:
// positions are in 2048ths of a pixel, and sums are cut as OpenCV's INTER_LINEAR cuts them.

struct Placed {
    const unsigned char* rgb;
    unsigned char* canvas;
    int width, height, row_bytes;  // of the picture
    int left, top, right, bottom;  // of its place in the canvas
    int unused;
};

__device__ void find_neighbours(int at, int places, int pixels, int& first, int& second, int& weight) {
    // The centre of a place, (at + 1/2) * pixels / places - 1/2, rounded.
    const long long centre = (((2LL * at + 1) * pixels - places) * 2048 + places);
    const long long most = (pixels - 1) * 2048LL;
    const long long position = centre < 0 ? 0 : min(centre / (2LL * places), most);
    first = (int)(position >> 11);
    second = min(first + 1, pixels - 1);
    weight = (int)(position & 2047);
}

extern "C" __global__ void letterbox(const Placed* pictures, int width, int height, int pad_value) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) {
        return;
    }
    const Placed picture = pictures[blockIdx.z];
    unsigned char* pixel = picture.canvas + ((size_t)y * width + x) * 3;
    if (x < picture.left || x >= picture.right || y < picture.top || y >= picture.bottom) {
        pixel[0] = pixel[1] = pixel[2] = (unsigned char)pad_value;
        return;
    }
    int left, right, right_weight, top, bottom, bottom_weight;
    find_neighbours(x - picture.left, picture.right - picture.left, picture.width, left, right, right_weight);
    find_neighbours(y - picture.top, picture.bottom - picture.top, picture.height, top, bottom, bottom_weight);
    const unsigned char* upper = picture.rgb + (size_t)top * picture.row_bytes;
    const unsigned char* lower = picture.rgb + (size_t)bottom * picture.row_bytes;
    for (int colour = 0; colour < 3; ++colour) {
        const int above = upper[left * 3 + colour] * (2048 - right_weight) + upper[right * 3 + colour] * right_weight;
        const int below = lower[left * 3 + colour] * (2048 - right_weight) + lower[right * 3 + colour] * right_weight;
        const int sum = ((2048 - bottom_weight) * (above >> 4) >> 16) + (bottom_weight * (below >> 4) >> 16);
        pixel[colour] = (unsigned char)((sum + 2) >> 2);
    }
}
